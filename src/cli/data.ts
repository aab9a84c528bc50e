// fera data: what a training would see of a folder, before any model is loaded.

import { Command } from "commander";
import { writeImage } from "../images/image-file.js";
import { IMAGE_ENDINGS } from "../images/image-tensor.js";
import { writeFileAtomically } from "../storage/file-access.js";
import { bucketsOf, findIn, type ImageDataset, renderContactSheet } from "../training/index.js";
import { DATA_OPTIONS, TRAINING_DATA_OPTIONS } from "../training/options/data-options.js";
import { choice, integer, type OptionValues, text } from "../training/options/option.js";
import {
  captionWarnings,
  dataOptionsOf,
  describeSkipped,
  describeTrainingData,
  heldOutWarnings,
  openSplit,
  SPLITS,
  upscaleWarnings,
  WHOLE_LIST,
} from "./datasets.js";
import { counted, formatCount } from "./format.js";
import { interruptible } from "./interrupt.js";
import { addOptions, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import { print, printable, printError, shortened } from "./printable.js";
import { UsageError } from "./usage-error.js";

const OPTIONS = {
  resolution: integer("side of the images in pixels, as the training will have it", { min: 1 }).withDefault(512),
  split: choice("which images: those that are trained on, those held out, or all", SPLITS).withDefault("train"),
  contactSheet: text("draws images as they are trained on, with captions, into this picture", "FILE"),
  contactSheetImages: integer("most images on it, spread evenly over all", { min: 1, max: 1000 }).withDefault(48),
  examples: integer("how many captions are shown; 0 for none", { min: 0 }).withDefault(5),
  json: text("writes all that is known of every image to this file", "FILE"),
  ...DATA_OPTIONS,
  regularizationData: TRAINING_DATA_OPTIONS.regularizationData,
  regularizationWeight: TRAINING_DATA_OPTIONS.regularizationWeight,
};

type DataOptions = OptionValues<typeof OPTIONS>;

/** The command. */
export function dataCommand(): Command {
  const command = new Command("data")
    .description(
      "Shows what a training would see: images, buckets, captions, what is skipped and why, and what is worth a second look.",
    )
    .argument("<FOLDER...>", "as --data of fera train");
  addOptions(command, OPTIONS, { config: true });
  return command.action(async (specs: string[]) => {
    const options = await readOptions(command, OPTIONS);
    const { contactSheet } = options;
    if (contactSheet !== undefined && !IMAGE_ENDINGS.some((ending) => contactSheet.toLowerCase().endsWith(ending))) {
      throw new UsageError(
        command,
        `--contact-sheet must end in ${IMAGE_ENDINGS.join(", ")}; got ${JSON.stringify(contactSheet)}.`,
      );
    }
    await interruptible("Stopping.", (signal) => showData(specs, options, signal));
  });
}

async function showData(specs: readonly string[], options: DataOptions, signal: AbortSignal): Promise<void> {
  const { resolution, split, contactSheet, contactSheetImages, examples, json, skippedList } = options;
  for (const file of [contactSheet, json, skippedList]) if (file !== undefined) await prepareOutputFile(file);
  const dataset = await openSplit(specs, split, {
    ...dataOptionsOf(options),
    regularizationData: options.regularizationData,
    regularizationWeight: options.regularizationWeight,
    size: resolution,
    signal,
  });
  for (const line of describeTrainingData(dataset, specs, options.validationSplit)) print(line);
  for (const line of describeExamples(dataset, examples)) print(line);
  for (const line of describeFindings(dataset, options)) print(line);
  const warnings = [...captionWarnings(dataset), ...upscaleWarnings(dataset), ...heldOutWarnings(dataset)];
  for (const line of warnings) printError(line);
  for (const line of describeSkipped(dataset.skipped, WHOLE_LIST)) printError(line);
  if (contactSheet !== undefined) {
    const title = `${specs.map(printable).join(", ")}: ${counted(dataset.size, "image")}`;
    await writeImage(contactSheet, await renderContactSheet(dataset, { title, limit: contactSheetImages, signal }));
    const drawn = Math.min(dataset.size, contactSheetImages);
    print(`drawn     ${drawn === dataset.size ? "all" : formatCount(drawn)} images in ${contactSheet}`);
  }
  if (json !== undefined) {
    const content = `${JSON.stringify(asJson(dataset), undefined, 1)}\n`;
    await writeFileAtomically(json, [new TextEncoder().encode(content)]);
  }
}

function describeExamples(dataset: ImageDataset, examples: number): string[] {
  const count = Math.min(examples, dataset.size);
  return Array.from({ length: count }, (_, i) => {
    const index = Math.floor((i * dataset.size) / count);
    return `  ${printable(shortened(dataset.name(index)))}: ${printable(shortened(dataset.caption(index))) || "(empty)"}`;
  });
}

/** Most images that a line names. */
const NAMED = 3;

function describeFindings(dataset: ImageDataset, { background, mask, bucket }: DataOptions): string[] {
  const { duplicates, cut, turned, animated, transparent } = findIn(dataset);
  const named = (indices: readonly number[]): string => {
    const names = indices.slice(0, NAMED).map((i) => printable(shortened(dataset.name(i))));
    const more = indices.length > NAMED ? `, … and ${formatCount(indices.length - NAMED)} more` : "";
    return names.join(", ") + more;
  };
  const lines: string[] = [];
  const say = (indices: readonly number[], what: string) => {
    if (indices.length > 0) lines.push(`  ${counted(indices.length, "image")} ${what}: ${named(indices)}`);
  };
  for (const same of duplicates.slice(0, NAMED)) {
    const captions = new Set(same.map((i) => dataset.caption(i)));
    lines.push(
      `  ${formatCount(same.length)} copies of one file${captions.size > 1 ? " with different captions" : ""}: ${named(same)}`,
    );
  }
  if (duplicates.length > NAMED) {
    lines.push(`  … and copies of ${counted(duplicates.length - NAMED, "more file", "more files")}`);
  }
  say(cut, `of which over 30 % are cut off${bucket ? "" : " (--bucket keeps more)"}`);
  say(turned, "turned upright, as EXIF says");
  say(animated, "with several frames, of which the first is taken");
  say(transparent, `with transparent parts, put on ${printable(background)}${mask ? "" : " (--mask leaves them out)"}`);
  return lines.length === 0 ? [] : ["noticed", ...lines];
}

function asJson(dataset: ImageDataset): object {
  const { duplicates } = findIn(dataset);
  const firstCopy = new Map(duplicates.flatMap(([first, ...others]) => others.map((i) => [i, first!] as const)));
  return {
    resolution: dataset.imageSize,
    heldOut: dataset.heldOut,
    hasMasks: dataset.hasMasks,
    buckets: bucketsOf(dataset).map(({ width, height, indices }) => ({
      ...{ width, height, images: indices.length },
      perEpoch: indices.reduce((sum, i) => sum + dataset.repeats(i), 0),
    })),
    images: Array.from({ length: dataset.size }, (_, i) => {
      const { own, isTurned, isAnimated, isTransparent } = dataset.traits(i) ?? {};
      const { width, height } = dataset.shape(i);
      return {
        name: dataset.name(i),
        caption: dataset.caption(i),
        captionSource: dataset.captionSource(i),
        ...(own && { originalWidth: own.width, originalHeight: own.height }),
        ...{ width, height, isTurned, isAnimated, isTransparent },
        repeats: dataset.repeats(i),
        isRegularization: dataset.isRegularization(i),
        lossWeight: dataset.lossWeight(i),
        contentHash: dataset.contentHash(i),
        ...(firstCopy.has(i) && { copyOf: dataset.name(firstCopy.get(i)!) }),
      };
    }),
    skipped: dataset.skipped,
  };
}
