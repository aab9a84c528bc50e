// What the embedded model can draw: names of drawings that all five icon sets have, and what a person might type for them.
//
// The rule: a name counts if Noto Emoji lists it in one of CATEGORIES or it is in ALSO, if every set draws it, and if it
// is not in LEFT_OUT: what is the same drawing but for a detail (faces, clocks, moons, parcels, trains), what is an arrow,
// a letter, a digit, a flag, a person's gender, or what few would call by its name.

import { createRequire } from "node:module";
import { captionOf, ICON_STYLES, type IconStyle, loadIconSet } from "../../src/training/data/icons.js";

const require = createRequire(import.meta.url);

const CATEGORIES = ["Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places"];

const words = (text: string): string[] => text.trim().split(/\s+/);

/** Of the categories that are mostly faces, people and signs. */
const ALSO = words(`
  alien alien-monster angry-face angry-face-with-horns clown-face cold-face cowboy-hat-face crying-face exploding-head
  face-screaming-in-fear face-vomiting face-with-medical-mask face-with-monocle face-with-tears-of-joy frowning-face ghost
  goblin grinning-face loudly-crying-face money-mouth-face nauseated-face nerd-face neutral-face ogre partying-face
  pile-of-poo robot skull skull-and-crossbones sleeping-face smiling-face-with-halo smiling-face-with-heart-eyes
  smiling-face-with-sunglasses star-struck thinking-face upside-down-face winking-face zipper-mouth-face grinning-cat
  see-no-evil-monkey hear-no-evil-monkey speak-no-evil-monkey
  red-heart orange-heart yellow-heart green-heart blue-heart purple-heart brown-heart black-heart white-heart pink-heart
  light-blue-heart grey-heart broken-heart heart-with-arrow heart-with-ribbon sparkling-heart two-hearts heart-on-fire
  mending-heart kiss-mark hundred-points collision speech-balloon thought-balloon zzz sweat-droplets hole love-letter
  red-circle orange-circle yellow-circle green-circle blue-circle purple-circle brown-circle black-circle white-circle
  red-square orange-square yellow-square green-square blue-square purple-square brown-square black-large-square
  white-large-square large-blue-diamond large-orange-diamond
  recycling-symbol radioactive biohazard warning no-entry prohibited no-smoking peace-symbol yin-yang cross-mark
  check-mark-button red-question-mark red-exclamation-mark star-of-david infinity wheelchair-symbol atom-symbol
  trident-emblem fleur-de-lis latin-cross menorah play-button pause-button heavy-dollar-sign
  baby bust-in-silhouette santa-claus astronaut cook detective firefighter guard ninja police-officer construction-worker
  anatomical-heart brain bone tooth ear eye eyes nose mouth tongue foot leg lungs footprints flexed-biceps thumbs-up
  thumbs-down raised-fist raised-hand victory-hand ok-hand clapping-hands folded-hands handshake crossed-fingers
  sign-of-the-horns mechanical-arm mechanical-leg pirate-flag chequered-flag triangular-flag
`);

const LEFT_OUT = new Set(
  words(`
  1st-place-medal 2nd-place-medal 3rd-place-medal admission-tickets carp-streamer field-hockey flower-playing-cards
  japanese-dolls joker mahjong-red-dragon moon-viewing-ceremony pine-decoration red-envelope reminder-ribbon softball
  sparkles tanabata-tree performing-arts confetti-ball sparkler running-shirt goal-net

  bookmark-tabs bell-with-slash black-nib camera-with-flash card-file-box card-index card-index-dividers
  chart-increasing-with-yen closed-mailbox-with-lowered-flag open-mailbox-with-lowered-flag open-mailbox-with-raised-flag
  computer-disk control-knobs desktop-computer dvd e-mail envelope-with-arrow euro-banknote fax-machine flat-shoe
  funeral-urn hair-pick hammer-and-pick hammer-and-wrench hamsa identification-card inbox-tray incoming-envelope label
  ledger level-slider link linked-paperclips locked-with-key locked-with-pen lotion-bottle low-battery
  magnifying-glass-tilted-right memo mobile-phone-with-arrow money-with-wings muted-speaker musical-notes musical-score
  notebook notebook-with-decorative-cover old-key one-piece-swimsuit open-file-folder open-book outbox-tray
  page-with-curl pager petri-dish pound-banknote yen-banknote prayer-beads placard receipt rolled-up-newspaper
  round-pushpin sari lab-coat satellite-antenna speaker-low-volume speaker-medium-volume spiral-calendar studio-microphone
  tear-off-calendar telephone-receiver thong-sandal trackball video-camera videocassette womans-clothes womans-sandal
  loudspeaker postal-horn shopping-bags broken-chain hiking-boot roll-of-paper film-frames fountain-pen mobile-phone

  aerial-tramway airplane-arrival airplane-departure small-airplane articulated-lorry barber-pole bellhop-bell
  bridge-at-night building-construction bus-stop cityscape-at-dusk cloud-with-lightning-and-rain closed-umbrella
  department-store derelict-house eight-oclock ferry passenger-ship motor-boat first-quarter-moon-face
  last-quarter-moon-face new-moon-face full-moon-face first-quarter-moon last-quarter-moon waning-crescent-moon
  waning-gibbous-moon waxing-crescent-moon waxing-gibbous-moon foggy globe-showing-americas globe-showing-asia-australia
  high-speed-train horizontal-traffic-light hot-springs houses hourglass-not-done house-with-garden hut
  japanese-post-office post-office light-rail love-hotel hotel mantelpiece-clock manual-wheelchair motorized-wheelchair
  map-of-japan minibus monorail motorway mountain mountain-cableway mountain-railway national-park night-with-stars
  oncoming-automobile oncoming-bus oncoming-police-car oncoming-taxi railway-car seat snowman-without-snow
  sport-utility-vehicle station sun-behind-large-cloud sun-behind-small-cloud sun-behind-rain-cloud sun-with-face
  sunrise-over-mountains suspension-railway synagogue timer-clock tram-car trolleybus umbrella-on-ground
  umbrella-with-rain-drops wedding wind-face bank convenience-store construction metro train kaaba cyclone

  brown-mushroom clinking-glasses custard dango fish-cake-with-swirl flatbread fork-and-knife-with-plate glass-of-milk
  oden pouring-liquid rice-cracker roasted-sweet-potato shallow-pan-of-food stuffed-flatbread tamale
  teacup-without-handle tumbler-glass mate leafy-green curry-rice bento-box steaming-bowl moon-cake clinking-beer-mugs
  sake beverage-box amphora bread jar takeout-box shaved-ice bagel

  empty-nest ewe front-facing-baby-chick guide-dog service-dog leaf-fluttering-in-wind ox rat rosette shamrock
  two-hump-camel chipmunk wilted-flower white-flower dodo bison boar spouting-whale cherry-blossom blossom herb
  cat dog-face cow horse-face tiger rabbit pig mouse monkey-face dragon-face water-buffalo black-cat wing microbe
`),
);

/** What a person might type instead of a drawing's name, where that is not plain from it. */
const ALIASES: Readonly<Record<string, string>> = {
  automobile: "car|red car",
  "american-football": "football",
  "alarm-clock": "clock",
  "anatomical-heart": "human heart",
  "artist-palette": "palette|paint palette",
  "baguette-bread": "baguette",
  "ballot-box-with-ballot": "ballot box",
  "beach-with-umbrella": "beach",
  "beer-mug": "beer",
  "billed-cap": "cap|baseball cap",
  "birthday-cake": "cake",
  "black-large-square": "black square",
  "bottle-with-popping-cork": "champagne|champagne bottle",
  brick: "bricks|brick wall",
  briefs: "underpants",
  "bullet-train": "train|fast train",
  bullseye: "target|dart board",
  "canned-food": "tin can|can",
  "carpentry-saw": "saw",
  "cat-face": "cat|face of a cat",
  "check-mark-button": "check mark",
  "cheese-wedge": "cheese",
  "chequered-flag": "racing flag",
  "clapper-board": "film clapper",
  "classical-building": "temple with columns",
  "closed-book": "red book|book",
  "closed-mailbox-with-raised-flag": "mailbox",
  "cloud-with-lightning": "lightning cloud",
  "cloud-with-rain": "rain cloud|rain",
  "cloud-with-snow": "snow cloud",
  "club-suit": "clubs",
  coat: "jacket",
  collision: "explosion|bang",
  "construction-worker": "builder",
  cook: "chef",
  "cooked-rice": "bowl of rice|rice",
  "couch-and-lamp": "couch|sofa",
  "cow-face": "cow|face of a cow",
  "cross-mark": "red cross|x mark",
  "cup-with-straw": "soft drink",
  "cut-of-meat": "steak",
  "deciduous-tree": "tree|green tree",
  "delivery-truck": "truck",
  "desert-island": "island",
  "diamond-suit": "diamonds",
  doughnut: "donut",
  "ear-of-corn": "corn",
  "electric-plug": "plug",
  "evergreen-tree": "fir tree|pine tree",
  fire: "flame",
  "fire-engine": "fire truck",
  "flag-in-hole": "golf|golf flag",
  "flexed-biceps": "strong arm|muscle",
  "floppy-disk": "disk",
  "flying-saucer": "ufo",
  "flying-disc": "frisbee",
  "folding-hand-fan": "fan",
  "folded-hands": "praying hands",
  "fork-and-knife": "cutlery|knife and fork",
  "four-leaf-clover": "clover",
  "framed-picture": "picture|painting",
  "french-fries": "fries|chips",
  "fried-shrimp": "tempura",
  "fuel-pump": "gas pump|petrol pump",
  "game-die": "dice",
  "gem-stone": "gem|diamond",
  "ginger-root": "ginger",
  "globe-showing-europe-africa": "globe|earth|planet earth",
  "glowing-star": "shining star",
  "graduation-cap": "square academic cap",
  "green-salad": "salad",
  hamburger: "burger",
  headphone: "headphones",
  "heart-suit": "hearts",
  "heavy-dollar-sign": "dollar sign",
  "high-heeled-shoe": "high heel",
  "high-voltage": "lightning|lightning bolt",
  honeybee: "bee",
  "hot-beverage": "coffee|cup of coffee",
  "hot-pepper": "chili pepper|chilli",
  "hourglass-done": "hourglass",
  "hundred-points": "hundred",
  ice: "ice cube",
  "jack-o-lantern": "pumpkin|halloween pumpkin",
  "kick-scooter": "scooter",
  "kitchen-knife": "knife",
  "kiwi-fruit": "kiwi",
  "kiss-mark": "lips|kiss",
  "lady-beetle": "ladybug|ladybird",
  "large-blue-diamond": "blue diamond",
  "large-orange-diamond": "orange diamond",
  "latin-cross": "cross",
  locked: "lock|padlock",
  locomotive: "steam train|steam engine",
  luggage: "suitcase",
  "magnifying-glass-tilted-left": "magnifying glass",
  "mans-shoe": "dress shoe|brown shoe",
  "martial-arts-uniform": "karate suit",
  "meat-on-bone": "meat",
  "military-medal": "medal of honour",
  moai: "stone head",
  "motor-scooter": "moped",
  "mouse-face": "mouse|face of a mouse",
  "movie-camera": "film camera",
  "musical-keyboard": "piano",
  "musical-note": "note",
  "nazar-amulet": "evil eye",
  "nut-and-bolt": "screw|bolt",
  "optical-disk": "cd|compact disc",
  package: "box|parcel",
  "page-facing-up": "page|document|sheet of paper",
  "palm-tree": "palm",
  panda: "panda bear",
  "party-popper": "party",
  "pig-face": "pig|face of a pig",
  "pile-of-poo": "poo|poop",
  "pirate-flag": "jolly roger",
  "ping-pong": "table tennis",
  "police-car-light": "siren",
  "pool-8-ball": "billiard ball|eight ball",
  "pot-of-food": "stew",
  "potted-plant": "house plant",
  "poultry-leg": "chicken leg|drumstick",
  "puzzle-piece": "puzzle|jigsaw",
  "rabbit-face": "rabbit|bunny|face of a rabbit",
  "racing-car": "race car|formula one",
  "railway-track": "rails",
  "red-apple": "apple",
  "red-exclamation-mark": "exclamation mark",
  "red-heart": "heart|love",
  "red-paper-lantern": "lantern",
  "red-question-mark": "question mark",
  "rescue-workers-helmet": "helmet",
  "ring-buoy": "life buoy",
  "ringed-planet": "planet|saturn",
  "running-shoe": "sneaker|trainer",
  "santa-claus": "santa",
  sauropod: "dinosaur|long neck dinosaur",
  scroll: "parchment",
  "sewing-needle": "needle",
  "sheaf-of-rice": "wheat",
  "shinto-shrine": "torii gate",
  "sign-of-the-horns": "rock hand",
  "skull-and-crossbones": "crossbones",
  "smiling-face-with-sunglasses": "cool face|face with sunglasses",
  "smiling-face-with-heart-eyes": "face in love",
  "smiling-face-with-halo": "angel face",
  "snow-capped-mountain": "mountain",
  "soccer-ball": "football ball|soccer",
  "soft-ice-cream": "ice cream cone",
  "spade-suit": "spades",
  "speaker-high-volume": "loudspeaker|speaker",
  "spiral-notepad": "notepad",
  "spiral-shell": "shell|sea shell",
  "sports-medal": "medal|gold medal",
  "statue-of-liberty": "liberty statue",
  "straight-ruler": "ruler",
  "sun-behind-cloud": "sun and cloud",
  "sweat-droplets": "water drops",
  "t-shirt": "shirt",
  "t-rex": "tyrannosaurus",
  "tiger-face": "tiger|face of a tiger",
  "top-hat": "cylinder hat",
  "triangular-ruler": "set square",
  "triangular-flag": "red flag",
  "tropical-drink": "cocktail with umbrella",
  "two-hearts": "pink hearts",
  unlocked: "open lock",
  "vertical-traffic-light": "traffic light",
  "victory-hand": "peace hand",
  "water-pistol": "water gun|gun",
  "water-wave": "wave",
  wastebasket: "trash can|bin",
  "white-large-square": "white square",
  "womans-boot": "boot",
  "womans-hat": "sun hat|hat",
  "wrapped-gift": "gift|present",
};

/** Names of the noto drawings that are trained on, sorted; held-out ones as well. */
export function trainingNames(): string[] {
  return inAllSets([...categoryNames(CATEGORIES), ...ALSO].filter((name) => !isLeftOut(name)));
}

/** Names that the autoencoder learns from: everything in the same categories and faces. */
export function autoencoderNames(): string[] {
  return inAllSets(
    categoryNames([...CATEGORIES, "Smileys & Emotion"]).filter((name) => !/-(?:oclock|thirty)$/.test(name)),
  );
}

/** What a person might type for a drawing: its name with spaces first. */
export function captionsOf(name: string): string[] {
  const own = captionOf(name);
  return [own, ...(ALIASES[name]?.split("|") ?? [])];
}

/** Every caption of every name must lead to one drawing. @throws {Error} Naming the first that does not. */
export function checkCaptions(names: readonly string[]): void {
  const owners = new Map<string, string>();
  for (const name of names) {
    for (const caption of captionsOf(name)) {
      const owner = owners.get(caption);
      if (owner !== undefined) throw new Error(`the caption "${caption}" belongs to ${owner} and to ${name}`);
      owners.set(caption, name);
    }
  }
  const unknown = [...Object.keys(ALIASES)].find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`there are aliases of ${unknown}, which is no trained name`);
}

function isLeftOut(name: string): boolean {
  return LEFT_OUT.has(name) || /-(?:oclock|thirty)$/.test(name);
}

function categoryNames(categories: readonly string[]): string[] {
  const all = require("@iconify-json/noto/metadata.json").categories as Record<string, string[]>;
  return categories.flatMap((category) => all[category]!);
}

function inAllSets(names: readonly string[]): string[] {
  const sets = (Object.keys(ICON_STYLES) as IconStyle[]).map(loadIconSet);
  const current = new Set(loadIconSet("noto").names);
  return [...new Set(names)].filter((name) => current.has(name) && sets.every((set) => set.has(name))).sort();
}
