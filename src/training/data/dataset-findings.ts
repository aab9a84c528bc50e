// What is worth a word about a data set before it is trained on.

import type { ImageDataset } from "./image-dataset.js";
import { placeImage } from "./image-placement.js";

/** Indices of images of which something is to be said. */
export interface DatasetFindings {
  /** Files of equal content, two or more each. */
  duplicates: number[][];
  /** Scaled up, which blurs them. */
  upscaled: number[];
  /** Of which the cut takes away more than {@link MUCH_LOST} of the picture. */
  cut: number[];
  turned: number[];
  animated: number[];
  transparent: number[];
  /** Without a caption of their own: the file name is learned. */
  uncaptioned: number[];
  /** With a caption that is empty. */
  emptyCaptions: number[];
}

/** Share of a picture whose loss is worth a word. */
export const MUCH_LOST = 0.3;

/** By how much an image is scaled up; 1 or less where it is not. */
export function upscalingOf(dataset: ImageDataset, index: number): number {
  const traits = dataset.traits(index);
  if (!traits || traits.isDrawing) return 1;
  const { width, height } = dataset.shape(index);
  return Math.max(width / traits.own.width, height / traits.own.height);
}

/** Share of the picture that the cut takes away, 0…1. */
export function lossOf(dataset: ImageDataset, index: number): number {
  const traits = dataset.traits(index);
  if (!traits) return 0;
  const shape = dataset.shape(index);
  const { scaled } = placeImage(traits.own, shape);
  return 1 - (shape.width * shape.height) / (scaled.width * scaled.height);
}

/** Looks at what is known of every image; reads no pixels. */
export function findIn(dataset: ImageDataset): DatasetFindings {
  const indices = Array.from({ length: dataset.size }, (_, i) => i);
  const where = (holds: (index: number) => boolean | undefined) => indices.filter((i) => holds(i));
  const byContent = new Map<string, number[]>();
  for (const i of indices) {
    // With another mask a copy is a copy still.
    const hash = dataset.traits(i)?.fileHash ?? dataset.contentHash(i);
    const same = byContent.get(hash);
    if (same) same.push(i);
    else byContent.set(hash, [i]);
  }
  return {
    duplicates: [...byContent.values()].filter((same) => same.length > 1),
    upscaled: where((i) => upscalingOf(dataset, i) > 1),
    cut: where((i) => lossOf(dataset, i) > MUCH_LOST),
    turned: where((i) => dataset.traits(i)?.isTurned),
    animated: where((i) => dataset.traits(i)?.isAnimated),
    transparent: where((i) => dataset.traits(i)?.isTransparent),
    uncaptioned: where((i) => dataset.captionSource(i) === "fileName"),
    emptyCaptions: where((i) => dataset.caption(i) === ""),
  };
}
