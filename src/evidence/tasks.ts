// What is learned: a style from many drawings or few, or one thing in several drawings; and on what it is measured.

import { BASE_STYLE, HELD_OUT_SHARE } from "../demo/index.js";
import { ConfigError, quoted } from "../errors.js";
import { Generator, randperm } from "../tensor/random.js";
import { hasSkinTone } from "../training/data/icon-names.js";
import { captionOf, ICON_STYLES, type IconStyle, isFlag, loadIconSet } from "../training/data/icons.js";
import { evenPlaces, type ImageDataset, openDataset, subsetOf } from "../training/index.js";

/** Where learning rates are tuned and hypotheses tried; no claim is made on it. */
export const TUNING_STYLE: IconStyle = "openmoji";

/** The styles that claims are made on. */
export const TEST_STYLES: readonly IconStyle[] = ["fluent-emoji-flat", "fluent-emoji-high-contrast", "twemoji"];

/** Whether claims are made on a run. */
export const isTest = ({ task }: { task: Task }): boolean => TEST_STYLES.includes(task.style);

/** The style on which parts of a method are left out or exchanged, one at a time. */
export const ABLATION_STYLE: IconStyle = "fluent-emoji-high-contrast";

const HOURS = "one two three four five six seven eight nine ten eleven twelve".split(" ");

/** Things that every set draws several times; the last ones are held out. */
export const SUBJECTS = {
  cat: [
    ...["grinning-cat", "crying-cat", "cat-with-wry-smile", "kissing-cat", "weary-cat", "cat-with-tears-of-joy"],
    ...["cat-face", "pouting-cat", "smiling-cat-with-heart-eyes", "grinning-cat-with-smiling-eyes"],
  ],
  heart: [
    ...["red-heart", "orange-heart", "green-heart", "purple-heart", "black-heart", "pink-heart", "grey-heart"],
    ...["yellow-heart", "blue-heart", "brown-heart", "white-heart", "light-blue-heart"],
  ],
  clock: [
    ...HOURS.flatMap((hour, i) => (i % 3 === 2 ? [] : [`${hour}-oclock`, `${hour}-thirty`])),
    ...HOURS.flatMap((hour, i) => (i % 3 === 2 ? [`${hour}-oclock`, `${hour}-thirty`] : [])),
  ],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type Subject = keyof typeof SUBJECTS;

/** How many of a subject's drawings are trained on; the others are held out. */
const TRAINED_SHARE = 2 / 3;

/** What is learned. */
export type Task =
  | { kind: "style"; style: IconStyle }
  | { kind: "few-shot"; style: IconStyle; drawings: number }
  | { kind: "subject"; style: IconStyle; subject: Subject };

/** A short name, of which no two tasks have the same: `twemoji`, `twemoji-8`, `twemoji-cat`. */
export function taskName(task: Task): string {
  switch (task.kind) {
    case "style":
      return task.style;
    case "few-shot":
      return `${task.style}-${task.drawings}`;
    case "subject":
      return `${task.style}-${task.subject}`;
  }
}

/** A task's drawings. */
export interface TaskData {
  train: ImageDataset;
  /** What errors and drawings are measured on. */
  heldOut: ImageDataset;
  /** Names that are held out everywhere, in the style that the base draws: what is forgotten. */
  own: ImageDataset;
}

/** What {@link openTask} opens. */
export interface TaskOptions {
  /** Side of the drawings in pixels. */
  size: number;
  /** What the base knows; everything that all sets draw, by default. */
  names?: readonly string[] | undefined;
  /** Chooses the few drawings of a few-shot task. */
  seed: number;
  /** Most held-out names, spread evenly; all by default. */
  limit?: number | undefined;
  /** Most drawings of the base's own style, spread evenly. */
  ownLimit: number;
  /** Whether the model takes a caption; names whose captions are too long for it are left out. Default: all. */
  takes?: (caption: string) => boolean;
}

/** Opens a task's drawings. @throws {ConfigError} If a few-shot task wants more drawings than there are. */
export async function openTask(task: Task, options: TaskOptions): Promise<TaskData> {
  const { size, names = sharedNames(), seed, limit, ownLimit, takes = () => true } = options;
  const taken = names.filter((name) => takes(captionOf(name)));
  const open = (style: IconStyle, split: "train" | "heldOut" | "all", of: readonly string[] = taken) =>
    openDataset(`icons:${style}`, { size, names: of, split, validationSplit: HELD_OUT_SHARE });
  const own = spread(await open(BASE_STYLE, "heldOut"), ownLimit);
  if (task.kind === "subject") {
    const all = (SUBJECTS[task.subject] as readonly string[]).filter((name) => takes(captionOf(name)));
    const trained = Math.round(TRAINED_SHARE * all.length);
    const heldOut = await open(task.style, "all", all.slice(trained));
    return { train: await open(task.style, "all", all.slice(0, trained)), heldOut: spread(heldOut, limit), own };
  }
  const train = await open(task.style, "train");
  const heldOut = spread(await open(task.style, "heldOut"), limit);
  if (task.kind === "style") return { train, heldOut, own };
  if (task.drawings > train.size) {
    throw new ConfigError(
      `evidence: ${task.drawings} drawings of ${quoted(task.style)} are more than the ${train.size} that there are.`,
    );
  }
  // The seed's own: five seeds see five choices, all methods of a seed the same one.
  const order = Array.from(randperm(train.size, { generator: new Generator(seed) }).data, Number);
  return { train: subsetOf(train, order.slice(0, task.drawings)), heldOut, own };
}

/** Names that every set draws: no skin tones, no flags. */
export function sharedNames(): string[] {
  const sets = (Object.keys(ICON_STYLES) as IconStyle[]).map(loadIconSet);
  return loadIconSet(BASE_STYLE).names.filter(
    (name) => !hasSkinTone(name) && !isFlag(name) && sets.every((set) => set.has(name)),
  );
}

/** At most so many of a dataset's drawings, spread evenly. */
const spread = (dataset: ImageDataset, limit: number | undefined): ImageDataset =>
  limit === undefined ? dataset : subsetOf(dataset, evenPlaces(dataset.size, limit));
