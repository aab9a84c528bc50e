// Images by the shape at which they are trained on: a batch holds one shape only.

import type { ImageShape } from "./image-variant.js";

/** Images of one shape. */
export interface ImageBucket extends ImageShape {
  /** Of the images, ascending. */
  readonly indices: readonly number[];
}

/** What {@link bucketsOf} needs of a dataset. */
interface ShapedImages {
  readonly size: number;
  shape(index: number): ImageShape;
}

/** The buckets that hold images, narrow before wide, and of one width low before high. */
export function bucketsOf(dataset: ShapedImages): ImageBucket[] {
  const buckets = new Map<string, ImageShape & { indices: number[] }>();
  for (let i = 0; i < dataset.size; i++) {
    const { width, height } = dataset.shape(i);
    const key = `${width}×${height}`;
    const bucket = buckets.get(key);
    if (bucket) bucket.indices.push(i);
    else buckets.set(key, { width, height, indices: [i] });
  }
  return [...buckets.values()].sort((a, b) => a.width - b.width || a.height - b.height);
}
