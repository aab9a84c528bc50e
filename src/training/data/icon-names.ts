// What an icon's name says: its caption, the drawing it is a variant of, and whether it is held out. Pure.

/** The icon sets that draw the same things in different styles, with their authors and licences. */
export const ICON_STYLES = {
  noto: {
    title: "Noto Emoji",
    author: "Google",
    license: "Apache-2.0",
    url: "https://github.com/googlefonts/noto-emoji",
  },
  "fluent-emoji-flat": {
    title: "Fluent Emoji, flat",
    author: "Microsoft",
    license: "MIT",
    url: "https://github.com/microsoft/fluentui-emoji",
  },
  "fluent-emoji-high-contrast": {
    title: "Fluent Emoji, high contrast",
    author: "Microsoft",
    license: "MIT",
    url: "https://github.com/microsoft/fluentui-emoji",
  },
  twemoji: { title: "Twemoji", author: "Twitter", license: "CC-BY-4.0", url: "https://github.com/jdecked/twemoji" },
  openmoji: {
    title: "OpenMoji",
    author: "OpenMoji",
    license: "CC-BY-SA-4.0",
    url: "https://github.com/hfg-gmuend/openmoji",
  },
} as const;

/** A key of `ICON_STYLES`. */
export type IconStyle = keyof typeof ICON_STYLES;

/** Share of drawings that training never sees. */
export const HELD_OUT_SHARE = 0.05;

// "-dark-skin-tone" at the end or inside (noto, twemoji, openmoji), "-tone5" (old noto names).
const SKIN_TONE = /-(?:medium-light|medium-dark|light|medium|dark)-skin-tone(?=-|$)|-tone[1-5](?=-|$)/g;
// fluent-emoji-flat ends names in the bare word; three plain names end like that in every set.
const BARE_SKIN_TONE = /-(?:medium-light|medium-dark|light|medium|dark)$/;
const NOT_A_SKIN_TONE: ReadonlySet<string> = new Set([
  "horizontal-traffic-light",
  "police-car-light",
  "vertical-traffic-light",
]);

/** The caption of an icon: its name with spaces, `"cat-with-wry-smile"` → `"cat with wry smile"`. */
export function captionOf(name: string): string {
  return name.replaceAll("-", " ");
}

/** Whether the name is one skin tone of a drawing, as any of the sets writes it. */
export function hasSkinTone(name: string): boolean {
  return withoutSkinTone(name) !== name;
}

/** Whether the icon is the flag of something (not a flag as an object, such as `flag-in-hole`). */
export function isFlag(name: string): boolean {
  return name !== "flag-in-hole" && (/^flag-/.test(name) || (/-flag$/.test(name) && !name.includes("mailbox")));
}

/**
 * The drawing that an icon is a variant of: the name without skin tones and without `-facing-right`, which mirrors.
 *
 * `man-medium-dark-skin-tone-bald`, `man-bald-dark` and `man-bald` share a base name across sets.
 */
export function baseNameOf(name: string): string {
  return withoutSkinTone(name).replace(/-facing-right(?=-|$)/, "");
}

/**
 * Whether an icon belongs to the held-out 5 % of drawings; the same in every set, on every machine.
 *
 * Hashes the base name with the words for a person's gender removed: the sets reuse a drawing under several of them
 * (noto's `astronaut`, `man-astronaut` and `woman-astronaut` are one file), and a held-out drawing must not be seen
 * under another name. Held out is what hashes below `share` · 2³².
 */
export function isHeldOut(name: string, { share = HELD_OUT_SHARE }: { share?: number } = {}): boolean {
  return hash32(drawingKey(baseNameOf(name))) < share * 2 ** 32;
}

/** FNV-1a over UTF-16 code units with the finalizer of MurmurHash3, which spreads similar names. */
export function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function withoutSkinTone(name: string): string {
  const bare = name.replace(SKIN_TONE, "");
  return NOT_A_SKIN_TONE.has(bare) ? bare : bare.replace(BARE_SKIN_TONE, "");
}

function drawingKey(baseName: string): string {
  if (baseName === "family" || baseName.startsWith("family-")) return "family";
  const words = baseName.split("-");
  const kept = words.filter((word) => !GENDER_WORDS.has(word));
  return kept.length > 0 ? kept.join("-") : "person";
}

const GENDER_WORDS: ReadonlySet<string> = new Set(["man", "woman", "person", "men", "women", "people", "adult"]);
