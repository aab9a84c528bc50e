// One interface over the sources of training images, split into what is trained on and what is held out. Node only.

import { createHash } from "node:crypto";
import { ConfigError, quoted, ShapeError } from "../../errors.js";
import type { Skipped } from "./folder-walk.js";
import { heldOutOf } from "./hold-out.js";
import {
  captionOf,
  hasSkinTone,
  type IconStyle,
  isHeldOut,
  loadIconSet,
  rasterizeIcons,
  toModelInput,
} from "./icons.js";
import { type FolderCaptionSource, type ImageFolderOptions, openImageFolder } from "./image-folder.js";
import { centreCrop, type ImagePlacement } from "./image-placement.js";
import { flipped, type ImageShape, type ImageVariant } from "./image-variant.js";

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
  /** SHA-256 in hex of the image's file, or of an icon's pixels: another one where the image has changed. */
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
}

/** Raised when icons are drawn, or files read, otherwise than before. */
const ICON_DRAWING = 1;
const FOLDER_READING = 1;

/** A source whose images count alike, everywhere, once an epoch. */
const EQUAL_IMAGES = {
  hasMasks: false,
  mask: async () => undefined,
  lossWeight: () => 1,
  isRegularization: () => false,
  repeats: () => 1,
} satisfies Partial<ImageDataset>;

/** Which images of a source are meant. */
export const DATASET_SPLITS = ["heldOut", "train", "all"] as const;

/** Options of `openDataset`. */
export interface DatasetOptions extends ImageFolderOptions {
  /** "train" by default. */
  split?: (typeof DATASET_SPLITS)[number];
  /** Share of the images that is held out, 0 to below 1; 0.05 by default, 0 holds none out. */
  validationSplit?: number;
  /** Whether icons come in every skin tone; by default only the plain drawing of each. */
  skinTones?: boolean;
  /** Folder for drawn icons; the user's cache folder by default, `false` for none. */
  cache?: string | false;
}

/** The share of a source's images that is held out where nothing else is said. */
export const DEFAULT_VALIDATION_SPLIT = 0.05;

/**
 * Opens training images by name: `icons:STYLE`, such as `icons:openmoji`, or the path of a folder.
 *
 * Of a folder's N images ⌊`validationSplit` · N⌋ are held out, always the same ones: by each file's path in the folder,
 * so that fewer than 20 images are all trained on by default. Of icons about that share is, by drawing, and alike in all
 * styles. Options about captions, links and folders that are left out are for folders; icons are named.
 *
 * @throws {ConfigError} If the style or an option is unknown, or the split holds no image.
 * @throws {FormatError} As `openImageFolder`.
 */
export async function openDataset(spec: string, options: DatasetOptions): Promise<ImageDataset> {
  const { split = "train", validationSplit: share = DEFAULT_VALIDATION_SPLIT } = options;
  if (!DATASET_SPLITS.includes(split)) {
    throw new ConfigError(`dataset: split must be one of ${DATASET_SPLITS.join(", ")}; got ${quoted(split)}.`);
  }
  if (!(typeof share === "number" && share >= 0 && share < 1)) {
    throw new ConfigError(`dataset: validationSplit must be a number from 0 to below 1; got ${quoted(share)}.`);
  }
  const isInSplit = (held: boolean): boolean => split === "all" || held === (split === "heldOut");
  if (spec.startsWith("icons:")) return openIcons(spec, isInSplit, share, options);
  return openFolder(spec, isInSplit, share, options);
}

async function openIcons(
  spec: string,
  isInSplit: (held: boolean) => boolean,
  share: number,
  { size, skinTones = false, cache, instancePrompt }: DatasetOptions,
): Promise<ImageDataset> {
  if (instancePrompt !== undefined) {
    throw new ConfigError("dataset: instancePrompt is for folders; every icon has a name, which is its caption.");
  }
  const style = spec.slice("icons:".length) as IconStyle;
  const all = loadIconSet(style).names.filter((name) => skinTones || !hasSkinTone(name));
  const names = all.filter((name) => isInSplit(isHeldOut(name, { share })));
  if (names.length === 0) throw emptySplit(spec, all.length, share);
  const pixels = await rasterizeIcons(style, names, size, { cache });
  const bytes = 3 * size * size;
  return {
    size: names.length,
    imageSize: size,
    heldOut: all.filter((name) => isHeldOut(name, { share })).length,
    heldOutCopies: 0,
    skipped: [],
    ...EQUAL_IMAGES,
    name: (index) => at(names, index),
    caption: (index) => captionOf(at(names, index)),
    captionSource: () => "iconName",
    contentHash: (index) => {
      at(names, index);
      return createHash("sha256")
        .update(pixels.subarray(index * bytes, (index + 1) * bytes))
        .digest("hex");
    },
    pixelKey: (index) => `${style} ${at(names, index)} ${size} ${ICON_DRAWING}`,
    shape: () => ({ width: size, height: size }),
    image: async (index, { flip } = {}) => flipped(toModelInput(pixels, size, [index]), size, flip),
    placement: async () => centreCrop(undefined, size),
  };
}

async function openFolder(
  dir: string,
  isInSplit: (held: boolean) => boolean,
  share: number,
  options: DatasetOptions,
): Promise<ImageDataset> {
  const folder = await openImageFolder(dir, options);
  const held = heldOutOf(folder.images, share);
  const trained = new Set(folder.images.flatMap(({ path, contentHash }) => (held.has(path) ? [] : [contentHash])));
  const indices = folder.images.flatMap((image, index) => (isInSplit(held.has(image.path)) ? [index] : []));
  if (indices.length === 0) throw emptySplit(dir, folder.images.length, share);
  const imageAt = (index: number) => folder.images[at(indices, index)]!;
  return {
    size: indices.length,
    imageSize: options.size,
    heldOut: held.size,
    heldOutCopies: folder.images.filter(({ path, contentHash }) => held.has(path) && trained.has(contentHash)).length,
    skipped: folder.skipped,
    ...EQUAL_IMAGES,
    name: (index) => imageAt(index).path,
    caption: (index) => imageAt(index).caption,
    captionSource: (index) => imageAt(index).captionSource,
    contentHash: (index) => imageAt(index).contentHash,
    pixelKey: (index) => `${imageAt(index).contentHash} ${options.size} ${FOLDER_READING}`,
    shape: () => ({ width: options.size, height: options.size }),
    image: async (index, { flip } = {}) => flipped(await folder.load(at(indices, index)), options.size, flip),
    placement: async (index) => folder.placement(at(indices, index)),
  };
}

function emptySplit(source: string, images: number, share: number): ConfigError {
  const why = share === 0 ? "validationSplit is 0" : `a share of ${share} is less than one`;
  return new ConfigError(
    `dataset: none of the ${images} images of "${source}" is held out: ${why}. Take another split, or a larger share.`,
  );
}

function at<T>(list: readonly T[], index: number): T {
  const value = list[index];
  if (value === undefined) throw new ShapeError(`dataset: index ${index} is outside the ${list.length} images.`);
  return value;
}
