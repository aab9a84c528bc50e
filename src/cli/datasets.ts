// Data as commands open it: one set of options, a bar while files are read, and words about what is learned from them.

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { writeFileAtomically } from "../storage/file-access.js";
import {
  bucketsOf,
  type CaptionSource,
  DATASET_SPLITS,
  type DatasetOptions,
  findIn,
  type ImageDataset,
  openDataset,
  subsetOf,
  upscalingOf,
} from "../training/index.js";
import { DATA_OPTIONS, type DataOptionValues } from "../training/options/data-options.js";
import { pickValues } from "../training/options/option.js";
import { counted, formatCount, formatTable } from "./format.js";
import { downloadMessages } from "./model-options.js";
import { kebabCase } from "./options.js";
import { printable, shortened } from "./printable.js";
import { Progress } from "./progress.js";

export { DATA_OPTIONS, DATASET_SPLITS as SPLITS };

/** Where a command that takes `DATA_OPTIONS` shows what was skipped. */
export const WHOLE_LIST = "--skipped-list FILE writes all";

/** The values of `DATA_OPTIONS` among a command's options. */
export function dataOptionsOf(options: DataOptionValues): DataOptionValues {
  return pickValues(DATA_OPTIONS, options) as DataOptionValues;
}

/** Of `DATA_OPTIONS`, what says nothing about the images that are measured on. */
const NOT_FOR_EVALUATION: readonly string[] = ["skippedList", "repeats", "regularizationPrompt"];

/** The arguments with which `fera evaluate` sees the data as a training did: what it held out, or all where that is nothing. */
export function evaluationArguments(
  dataset: ImageDataset,
  data: readonly string[],
  options: DataOptionValues,
): string[] {
  const words = data.flatMap((one) => ["--data", one]);
  if (dataset.heldOut === 0) words.push("--split", "train");
  for (const [name, spec] of Object.entries(DATA_OPTIONS)) {
    const value = options[name as keyof DataOptionValues];
    if (value === undefined || value === spec.defaultValue || NOT_FOR_EVALUATION.includes(name)) continue;
    words.push(`--${kebabCase(name)}`);
    if (value !== true) words.push(String(value));
  }
  return words;
}

/** A place of data as it holds from any folder: an absolute path, or what is none. */
export function absoluteData(spec: string): string {
  const [, place, times] = existsSync(spec) ? [spec, spec, ""] : (/^(.+?)(=\d+)$/.exec(spec) ?? [spec, spec, ""]);
  // What is no path here is a data set's name on the hub, or a set of icons.
  return existsSync(place!) ? `${resolve(place!)}${times}` : spec;
}

/** What {@link openSplit} is told beside `DATA_OPTIONS`. */
interface SplitOptions
  extends Partial<DataOptionValues>,
    Pick<DatasetOptions, "size" | "exclude" | "signal" | "regularizationData" | "regularizationWeight"> {
  /** Most images wanted; they are spread evenly over the dataset. */
  limit?: number | undefined;
  /** Whether regularization images are left out, which are there for a training only. */
  isForMeasuring?: boolean;
}

/** What is done sooner needs no bar. */
const QUIET_MS = 500;

/** Opens a dataset as `openDataset` does, with a bar for a folder's files, and writes `skippedList`. */
export async function openSplit(
  spec: string | readonly string[],
  split: (typeof DATASET_SPLITS)[number],
  { limit, skippedList, isForMeasuring = false, ...options }: SplitOptions,
): Promise<ImageDataset> {
  let bar: Progress | undefined;
  let ofTotal = 0;
  const started = performance.now();
  const whole = await openDataset(spec, {
    ...options,
    split,
    hub: downloadMessages(),
    onProgress: (done, total) => {
      // The next of several folders.
      if (total !== ofTotal) {
        bar?.end();
        bar = undefined;
        ofTotal = total;
      }
      if (!bar && performance.now() - started < QUIET_MS) return;
      bar ??= new Progress({ label: "reading", total, unit: "images" });
      bar.update(done);
    },
  }).finally(() => bar?.end());
  if (skippedList !== undefined) await writeSkipped(skippedList, whole.skipped);
  const all = Array.from({ length: whole.size }, (_, i) => i);
  const wanted = isForMeasuring ? all.filter((i) => !whole.isRegularization(i)) : all;
  const count = Math.min(limit ?? wanted.length, wanted.length);
  if (count === whole.size) return whole;
  return subsetOf(
    whole,
    Array.from({ length: count }, (_, i) => wanted[Math.floor((i * wanted.length) / count)]!),
  );
}

async function writeSkipped(file: string, skipped: ImageDataset["skipped"]): Promise<void> {
  const lines = skipped.map(({ path, reason }) => `${printable(path)}: ${printable(reason)}\n`);
  await writeFileAtomically(file, [new TextEncoder().encode(lines.join(""))]);
}

/** How many images there are to train on, how many are held out, and where the captions come from. */
export function describeTrainingData(
  dataset: ImageDataset,
  specs: string | readonly string[],
  validationSplit: number,
): string[] {
  const { size, heldOut, imageSize } = dataset;
  const indices = Array.from({ length: size }, (_, i) => i);
  const classImages = indices.filter((i) => dataset.isRegularization(i));
  const own = size - classImages.length;
  const whole = own + heldOut;
  const share = validationSplit === 0 ? "" : `: ${formatPercent(validationSplit)} of ${formatCount(whole)}`;
  const heldBack =
    heldOut === 0
      ? `none held out${share && `${share} is less than one`}`
      : `${formatCount(heldOut)} more held out${share}`;
  const spec = [specs].flat().map(printable).join(", ");
  const lines = [`data      ${counted(own, "image")} of ${spec} to train on, ${imageSize} pixels; ${heldBack}`];
  if (classImages.length > 0) {
    const weight = dataset.lossWeight(classImages[0]!);
    lines.push(
      `          ${counted(classImages.length, "regularization image")}` +
        `${weight === 1 ? "" : `, which count ${weight} times`}`,
    );
  }
  const epoch = indices.reduce((sum, i) => sum + dataset.repeats(i), 0);
  if (epoch !== size) lines.push(`          with repeats ${formatCount(epoch)} an epoch`);
  if (dataset.hasMasks) lines.push("          the loss is weighted by masks");
  lines.push(...describeBuckets(dataset), `captions  ${describeCaptions(dataset)}`);
  return lines;
}

/** Most buckets that are listed by themselves. */
const LISTED_BUCKETS = 40;

/** The shapes that images are trained at, where there is more than one, or another than the square. */
export function describeBuckets(dataset: ImageDataset): string[] {
  const buckets = bucketsOf(dataset);
  const [first] = buckets;
  if (buckets.length === 1 && first!.width === dataset.imageSize && first!.height === dataset.imageSize) return [];
  const rows = buckets.slice(0, LISTED_BUCKETS).map(({ width, height, indices }) => {
    const epoch = indices.reduce((sum, i) => sum + dataset.repeats(i), 0);
    const often = epoch === indices.length ? "" : `, ${formatCount(epoch)} an epoch`;
    return [`  ${width}×${height}`, `${counted(indices.length, "image")}${often}`];
  });
  const more = buckets.length - rows.length;
  return [
    `buckets   ${counted(buckets.length, "shape")}, width × height:`,
    ...formatTable(rows, 2),
    ...(more > 0 ? [`  … and ${formatCount(more)} more`] : []),
  ];
}

/** Images with more to them than is learned; for stderr. */
export function frameWarnings(dataset: ImageDataset): string[] {
  const { animated } = findIn(dataset);
  if (animated.length === 0) return [];
  const first = printable(shortened(dataset.name(animated[0]!)));
  const have = animated.length === 1 ? "has" : "have";
  return [
    `warning   ${counted(animated.length, "image")} ${have} several frames, of which the first is taken: ${first}.`,
  ];
}

/** Images that are scaled up, which blurs them; for stderr. */
export function upscaleWarnings(dataset: ImageDataset): string[] {
  const found: { name: string; own: string; factor: number }[] = [];
  for (let i = 0; i < dataset.size; i++) {
    const factor = upscalingOf(dataset, i);
    if (factor <= 1) continue;
    const { width, height } = dataset.traits(i)!.own;
    found.push({ name: dataset.name(i), own: `${width}×${height}`, factor });
  }
  if (found.length === 0) return [];
  const most = found.reduce((worst, one) => (one.factor > worst.factor ? one : worst));
  const example = `${printable(shortened(most.name))} of ${most.own} pixels ${Number(most.factor.toPrecision(2))} times`;
  return [
    `warning   ${counted(found.length, "image")} ${found.length === 1 ? "is" : "are"} smaller than what is trained at, and ` +
      `scaled up: ${example}. Larger ones are better; --bucket --bucket-no-upscale keeps them as they are.`,
  ];
}

const SOURCE_NAMES: Readonly<Record<CaptionSource, string>> = {
  textFile: "from text files",
  metadata: "from metadata files",
  column: "from a column of the table",
  instancePrompt: "the instance prompt",
  regularizationPrompt: "the regularization prompt",
  folderName: "from folders' names",
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

/** What speaks against measuring on a folder beside the training's; for stderr. */
export function validationWarnings(dataset: ImageDataset, validation: ImageDataset): string[] {
  const learned = new Set(Array.from({ length: dataset.size }, (_, i) => dataset.contentHash(i)));
  const copies = Array.from({ length: validation.size }, (_, i) => i).filter((i) =>
    learned.has(validation.contentHash(i)),
  );
  if (copies.length === 0) return [];
  const first = printable(shortened(validation.name(copies[0]!)));
  return [
    `warning   ${formatCount(copies.length)} of ${counted(validation.size, "validation image")} are trained on, too, such as ` +
      `${first}: a loss measured there says nothing about new images.`,
  ];
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
