// Data as commands open it: one set of options, a bar while files are read, and words about what is learned from them.

import { writeFileAtomically } from "../storage/file-access.js";
import {
  type CaptionSource,
  DATASET_SPLITS,
  type DatasetOptions,
  DEFAULT_VALIDATION_SPLIT,
  type ImageDataset,
  openDataset,
} from "../training/index.js";
import { anyText, flag, number, type OptionValues, text } from "../training/options/option.js";
import { counted, formatCount } from "./format.js";
import { printable, shortened } from "./printable.js";
import { Progress } from "./progress.js";

export { DATASET_SPLITS as SPLITS };

/** What every command takes that opens data; `validationSplit` must be the training's to find what it held out. */
export const DATA_OPTIONS = {
  validationSplit: number("share of a folder's images that is held out from training, rounded down; 0 for none", {
    min: 0,
    below: 1,
  }).withDefault(DEFAULT_VALIDATION_SPLIT),
  instancePrompt: anyText("caption of images that have none of their own; by default it is their file name", "PROMPT"),
  captionExtension: text("ending of caption files; by default .txt, then .caption", "EXTENSION"),
  followLinks: flag("follow links that lead out of the data folder: they can name any file of yours"),
  skippedList: text("writes every file that is not used, and why, to this file", "FILE").changesNothing(),
};

/** Values of `DATA_OPTIONS`. */
export type DataOptionValues = OptionValues<typeof DATA_OPTIONS>;

/** The values of `DATA_OPTIONS` among a command's options. */
export function dataOptionsOf(options: DataOptionValues): DataOptionValues {
  const { validationSplit, instancePrompt, captionExtension, followLinks, skippedList } = options;
  return { validationSplit, instancePrompt, captionExtension, followLinks, skippedList };
}

/** The arguments with which `fera evaluate` sees the data as a training did: what it held out, or all where that is nothing. */
export function evaluationArguments(dataset: ImageDataset, data: string, options: DataOptionValues): string[] {
  const { validationSplit, instancePrompt, captionExtension, followLinks } = options;
  const words = ["--data", data];
  if (dataset.heldOut === 0) words.push("--split", "train");
  if (validationSplit !== DEFAULT_VALIDATION_SPLIT) words.push("--validation-split", String(validationSplit));
  if (instancePrompt !== undefined) words.push("--instance-prompt", instancePrompt);
  if (captionExtension !== undefined) words.push("--caption-extension", captionExtension);
  if (followLinks) words.push("--follow-links");
  return words;
}

/** What {@link openSplit} is told beside `DATA_OPTIONS`. */
interface SplitOptions extends Partial<DataOptionValues>, Pick<DatasetOptions, "size" | "exclude" | "signal"> {
  /** Most images wanted; they are spread evenly over the dataset. */
  limit?: number | undefined;
}

/** What is done sooner needs no bar. */
const QUIET_MS = 500;

/** Opens a dataset as `openDataset` does, with a bar for a folder's files, and writes `skippedList`. */
export async function openSplit(
  spec: string,
  split: (typeof DATASET_SPLITS)[number],
  { limit, skippedList, ...options }: SplitOptions,
): Promise<ImageDataset> {
  let bar: Progress | undefined;
  const started = performance.now();
  const whole = await openDataset(spec, {
    ...options,
    split,
    onProgress: (done, total) => {
      if (!bar && performance.now() - started < QUIET_MS) return;
      bar ??= new Progress({ label: "reading", total, unit: "images" });
      bar.update(done);
    },
  }).finally(() => bar?.end());
  if (skippedList !== undefined) await writeSkipped(skippedList, whole.skipped);
  if (limit === undefined || limit >= whole.size) return whole;
  const chosen = (i: number): number => (i < limit ? Math.floor((i * whole.size) / limit) : whole.size);
  return {
    ...whole,
    size: limit,
    name: (i) => whole.name(chosen(i)),
    caption: (i) => whole.caption(chosen(i)),
    captionSource: (i) => whole.captionSource(chosen(i)),
    contentHash: (i) => whole.contentHash(chosen(i)),
    pixelKey: (i) => whole.pixelKey(chosen(i)),
    shape: (i) => whole.shape(chosen(i)),
    image: (i, variant) => whole.image(chosen(i), variant),
    mask: (i, variant) => whole.mask(chosen(i), variant),
    placement: (i, variant) => whole.placement(chosen(i), variant),
    lossWeight: (i) => whole.lossWeight(chosen(i)),
    isRegularization: (i) => whole.isRegularization(chosen(i)),
    repeats: (i) => whole.repeats(chosen(i)),
  };
}

async function writeSkipped(file: string, skipped: ImageDataset["skipped"]): Promise<void> {
  const lines = skipped.map(({ path, reason }) => `${printable(path)}: ${printable(reason)}\n`);
  await writeFileAtomically(file, [new TextEncoder().encode(lines.join(""))]);
}

/** How many images there are to train on, how many are held out, and where the captions come from. */
export function describeTrainingData(dataset: ImageDataset, spec: string, validationSplit: number): string[] {
  const { size, heldOut, imageSize } = dataset;
  const whole = size + heldOut;
  const share = validationSplit === 0 ? "" : `: ${formatPercent(validationSplit)} of ${formatCount(whole)}`;
  const heldBack =
    heldOut === 0
      ? `none held out${share && `${share} is less than one`}`
      : `${formatCount(heldOut)} more held out${share}`;
  return [
    `data      ${counted(size, "image")} of ${printable(spec)} to train on, ${imageSize} pixels; ${heldBack}`,
    `captions  ${describeCaptions(dataset)}`,
  ];
}

const SOURCE_NAMES: Readonly<Record<CaptionSource, string>> = {
  textFile: "from text files",
  metadata: "from metadata files",
  instancePrompt: "the instance prompt",
  fileName: "from file names",
  iconName: "icons' names",
};

function describeCaptions(dataset: ImageDataset): string {
  const counts = new Map<CaptionSource, number>();
  let empty = 0;
  for (let i = 0; i < dataset.size; i++) {
    counts.set(dataset.captionSource(i), (counts.get(dataset.captionSource(i)) ?? 0) + 1);
    if (dataset.caption(i) === "") empty++;
  }
  const parts = [...counts].map(([source, count]) => `${formatCount(count)} ${SOURCE_NAMES[source]}`);
  return parts.join(", ") + (empty > 0 ? `; ${formatCount(empty)} of them empty` : "");
}

/** Warnings about what is learned that nobody may have meant; for stderr. */
export function captionWarnings(dataset: ImageDataset): string[] {
  const places = Array.from({ length: dataset.size }, (_, i) => i).filter(
    (i) => dataset.captionSource(i) === "fileName",
  );
  const first = places[0];
  if (first === undefined) return [];
  const example = `"${printable(shortened(dataset.caption(first)))}" of ${printable(dataset.name(first))}`;
  const names = places.length === 1 ? "its file name" : "their file names";
  return [
    `warning   ${counted(places.length, "image")} without a caption: trained on ${names}, such as ${example}. ` +
      "Write captions into NAME.txt beside each image, or give one for all with --instance-prompt.",
  ];
}

/** What speaks against measuring on the held-out images; for stderr. */
export function heldOutWarnings({ heldOut, heldOutCopies }: ImageDataset): string[] {
  if (heldOutCopies === 0) return [];
  const which =
    heldOut === 1
      ? "the held-out image is a copy"
      : `${formatCount(heldOutCopies)} of ${formatCount(heldOut)} held-out images are copies`;
  return [`warning   ${which} of what is trained on: an error measured there says nothing about new images.`];
}

/** What stands in an example where no caption tells what the data shows. */
const PROMPT_PLACEHOLDER = "PROMPT";
/** What cameras and scanners call their files. */
const NUMBERED =
  /^(?:dscn?|dscf|img|image|pict?|photo|picture|scan|screenshot|untitled|p|mvimg|pxl|wp|gopr|dji)?[\s\d]*$/i;

/** A prompt for an example command: the first caption that says something, and can be typed. */
export function examplePrompt(dataset: ImageDataset): string {
  for (let i = 0; i < dataset.size; i++) {
    const caption = dataset.caption(i);
    const tells = caption !== "" && (dataset.captionSource(i) !== "fileName" || !NUMBERED.test(caption));
    if (tells && caption.length <= 100 && printable(caption) === caption) return caption;
  }
  return PROMPT_PLACEHOLDER;
}

/** Where a command that takes `DATA_OPTIONS` shows what was skipped. */
export const WHOLE_LIST = "--skipped-list FILE writes all";

const NAMED = 3;

/**
 * Says how many files were skipped, and names the first ones, those of one reason together.
 *
 * @param where - How to see all of them.
 */
export function describeSkipped(skipped: ImageDataset["skipped"], where = ""): string[] {
  if (skipped.length === 0) return [];
  const byReason = new Map<string, string[]>();
  for (const { path, reason } of skipped) {
    const paths = byReason.get(reason);
    if (paths) paths.push(path);
    else byReason.set(reason, [path]);
  }
  const groups = [...byReason].sort(([, a], [, b]) => b.length - a.length);
  const lines = groups.slice(0, NAMED).map(([reason, paths]) => {
    const more = paths.length > NAMED ? `, … and ${formatCount(paths.length - NAMED)} more` : "";
    const names = paths.slice(0, NAMED).map((path) => printable(shortened(path)));
    return `  ${names.join(", ")}${more}: ${printable(reason)}`;
  });
  const rest = groups.slice(NAMED).reduce((sum, [, paths]) => sum + paths.length, 0);
  if (rest > 0) lines.push(`  … and ${formatCount(rest)} more${where && ` (${where})`}`);
  return [`skipped   ${counted(skipped.length, "file")}:`, ...lines];
}

const formatPercent = (share: number): string => `${Number((100 * share).toPrecision(6))} %`;
