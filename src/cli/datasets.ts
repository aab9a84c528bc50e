// Views of datasets: both splits as one, and some images of many.

import { type DatasetOptions, type ImageDataset, openDataset } from "../training/index.js";
import { counted } from "./format.js";

/** Which images of a dataset are meant. */
export const SPLITS = ["heldOut", "train", "all"] as const;

/**
 * Opens a dataset as `openDataset` does, or the whole of it.
 *
 * @param options.limit - Most images wanted; they are spread evenly over the dataset.
 */
export async function openSplit(
  spec: string,
  split: (typeof SPLITS)[number],
  { limit, ...options }: Omit<DatasetOptions, "split"> & { limit?: number },
): Promise<ImageDataset> {
  const parts: ImageDataset[] = [];
  for (const part of split === "all" ? (["train", "heldOut"] as const) : [split]) {
    parts.push(await openDataset(spec, { ...options, split: part }));
  }
  const places = parts.flatMap((part) => Array.from({ length: part.size }, (_, index) => ({ part, index })));
  const count = Math.min(places.length, limit ?? places.length);
  const chosen = Array.from({ length: count }, (_, i) => places[Math.floor((i * places.length) / count)]!);
  return {
    size: count,
    imageSize: options.size,
    skipped: parts[0]!.skipped,
    name: (i) => chosen[i]!.part.name(chosen[i]!.index),
    caption: (i) => chosen[i]!.part.caption(chosen[i]!.index),
    image: (i) => chosen[i]!.part.image(chosen[i]!.index),
    placement: (i) => chosen[i]!.part.placement(chosen[i]!.index),
  };
}

const NAMED = 3;

/** Says how many files were skipped, and names the first ones. */
export function describeSkipped(skipped: ImageDataset["skipped"]): string[] {
  if (skipped.length === 0) return [];
  const lines = skipped.slice(0, NAMED).map(({ path, reason }) => `  ${path}: ${reason}`);
  if (skipped.length > NAMED) lines.push(`  … and ${skipped.length - NAMED} more`);
  return [`skipped   ${counted(skipped.length, "file")}:`, ...lines];
}
