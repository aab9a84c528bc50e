// What a training sees of images and captions, whatever they come from.

import { ShapeError } from "../../errors.js";
import type { Skipped } from "./folder-walk.js";
import type { ImagePlacement } from "./image-placement.js";
import type { ImageShape, ImageVariant } from "./image-variant.js";
import type { FolderCaptionSource, ImageTraits } from "./source-image.js";

/** Where a caption comes from. */
export type CaptionSource = FolderCaptionSource | "iconName";

/** Images with captions. */
export interface ImageDataset {
  /** How many images there are. */
  readonly size: number;
  /** The training's resolution R in pixels: without buckets every image is R×R, with them about R² pixels. */
  readonly imageSize: number;
  /** How many images of the source are held out from training; in a dataset of the split "train" they are missing. */
  readonly heldOut: number;
  /** How many of those are copies of an image that is trained on, and so show nothing that is new to the model. */
  readonly heldOutCopies: number;
  /** What could not be used, with the reason. */
  readonly skipped: readonly Skipped[];
  /** Whether any image has a mask; `mask` is undefined for those without one, which count everywhere. */
  readonly hasMasks: boolean;
  /** The icon's name or the file's path in the folder: no two images have the same. */
  name(index: number): string;
  /** The whole text, with what goes before and after every caption. */
  caption(index: number): string;
  captionSource(index: number): CaptionSource;
  /** SHA-256 in hex of the image's file and mask, or of an icon's pixels: another one where the image has changed. */
  contentHash(index: number): string;
  /**
   * Changes whenever `image`, `mask` or `placement` of any variant would give something else: content, shape, background
   * and the way of reading. The key of what is made of the pixels and kept.
   */
  pixelKey(index: number): string;
  /** H×W of this image as it is trained on: its bucket. */
  shape(index: number): ImageShape;
  /** One image, `[3, H, W]` in [-1, 1]. */
  image(index: number, variant?: ImageVariant): Promise<Float32Array>;
  /** How much each pixel's error counts, `[1, H, W]` in 0…1, cut and flipped as the image is; undefined for 1 everywhere. */
  mask(index: number, variant?: ImageVariant): Promise<Float32Array | undefined>;
  /** How the image came to its size. */
  placement(index: number, variant?: ImageVariant): Promise<ImagePlacement>;
  /** Factor of this image's loss: 1, or the weight of regularization images. */
  lossWeight(index: number): number;
  /** Whether it shows the class at large (prior preservation), not what is to be learned. */
  isRegularization(index: number): boolean;
  /** How often it comes in an epoch, 1 or more. */
  repeats(index: number): number;
  /** What its file is like, and the file's own hash; undefined for icons. */
  traits(index: number): (ImageTraits & { readonly fileHash: string }) | undefined;
}

/** Places of at most `most` of `size` things, at equal distances; of all where there are no more. */
export function evenPlaces(size: number, most: number): number[] {
  const count = Math.min(most, size);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) * size) / count));
}

/**
 * Some of a dataset's images.
 *
 * @param indices - Of the images wanted, in their order.
 */
export function subsetOf(dataset: ImageDataset, indices: readonly number[]): ImageDataset {
  const at = (index: number): number => {
    const chosen = indices[index];
    if (chosen === undefined) throw new ShapeError(`dataset: index ${index} is outside the ${indices.length} images.`);
    return chosen;
  };
  return {
    ...dataset,
    size: indices.length,
    name: (i) => dataset.name(at(i)),
    caption: (i) => dataset.caption(at(i)),
    captionSource: (i) => dataset.captionSource(at(i)),
    contentHash: (i) => dataset.contentHash(at(i)),
    pixelKey: (i) => dataset.pixelKey(at(i)),
    shape: (i) => dataset.shape(at(i)),
    image: async (i, variant) => dataset.image(at(i), variant),
    mask: async (i, variant) => dataset.mask(at(i), variant),
    placement: async (i, variant) => dataset.placement(at(i), variant),
    lossWeight: (i) => dataset.lossWeight(at(i)),
    isRegularization: (i) => dataset.isRegularization(at(i)),
    repeats: (i) => dataset.repeats(at(i)),
    traits: (i) => dataset.traits(at(i)),
  };
}
