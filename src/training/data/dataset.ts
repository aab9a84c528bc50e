// One interface over the sources of training images, split into what is trained on and what is held out. Node only.

import path from "node:path";
import { ConfigError, ShapeError } from "../../errors.js";
import { hash32, isHeldOutKey } from "./icon-names.js";
import {
  captionOf,
  hasSkinTone,
  type IconStyle,
  isHeldOut,
  loadIconSet,
  rasterizeIcons,
  toModelInput,
} from "./icons.js";
import { openImageFolder } from "./image-folder.js";
import { centreCrop, type ImagePlacement } from "./image-placement.js";

/** Images with captions. */
export interface ImageDataset {
  /** How many images there are. */
  readonly size: number;
  /** Side of every image, in pixels. */
  readonly imageSize: number;
  /** What could not be used, with the reason. */
  readonly skipped: readonly { path: string; reason: string }[];
  /** The icon's name or the file's path in the folder. */
  name(index: number): string;
  caption(index: number): string;
  /** One image, `[3, S, S]` in [-1, 1]. */
  image(index: number): Promise<Float32Array>;
  /** How the image came to its size. */
  placement(index: number): Promise<ImagePlacement>;
}

/** Options of `openDataset`. */
export interface DatasetOptions {
  /** Side S of the images, in pixels. */
  size: number;
  /** "train" by default. */
  split?: "train" | "heldOut";
  /** Whether icons come in every skin tone; by default only the plain drawing of each. */
  skinTones?: boolean;
  /** Folder for drawn icons; the user's cache folder by default, `false` for none. */
  cache?: string | false;
}

/**
 * Opens training images by name: `icons:STYLE`, such as `icons:openmoji`, or the path of a folder.
 *
 * About 5 % are held out, always the same ones: of icons, by drawing, and alike in all styles; of a folder's images, by
 * the hash of the file name, at least one. A folder with a single image is all for training.
 *
 * @throws {ConfigError} If the style or an option is unknown, or there are too few images to hold one out.
 * @throws {FormatError} If the folder is missing or holds no usable image.
 */
export async function openDataset(spec: string, options: DatasetOptions): Promise<ImageDataset> {
  const { split = "train" } = options;
  if (split !== "train" && split !== "heldOut") {
    throw new ConfigError(`dataset: split must be "train" or "heldOut"; got ${JSON.stringify(split)}.`);
  }
  if (spec.startsWith("icons:")) return openIcons(spec.slice("icons:".length) as IconStyle, split, options);
  return openFolder(spec, split, options);
}

async function openIcons(
  style: IconStyle,
  split: "train" | "heldOut",
  { size, skinTones = false, cache }: DatasetOptions,
): Promise<ImageDataset> {
  const names = loadIconSet(style).names.filter(
    (name) => isHeldOut(name) === (split === "heldOut") && (skinTones || !hasSkinTone(name)),
  );
  const pixels = await rasterizeIcons(style, names, size, { cache });
  return {
    size: names.length,
    imageSize: size,
    skipped: [],
    name: (index) => at(names, index),
    caption: (index) => captionOf(at(names, index)),
    image: async (index) => toModelInput(pixels, size, [index]),
    placement: async () => centreCrop(undefined, size),
  };
}

async function openFolder(dir: string, split: "train" | "heldOut", { size }: DatasetOptions): Promise<ImageDataset> {
  const folder = await openImageFolder(dir, { size });
  const held = heldOutOf(folder.images.map((image) => image.path));
  const indices = folder.images.flatMap((image, index) =>
    held.has(image.path) === (split === "heldOut") ? [index] : [],
  );
  if (indices.length === 0) {
    throw new ConfigError(`dataset: "${dir}" has one image only; at least two are needed to hold one out.`);
  }
  return {
    size: indices.length,
    imageSize: size,
    skipped: folder.skipped,
    name: (index) => folder.images[at(indices, index)]!.path,
    caption: (index) => folder.images[at(indices, index)]!.caption,
    image: async (index) => folder.load(at(indices, index)),
    placement: async (index) => folder.placement(at(indices, index)),
  };
}

/**
 * The held-out ones of some file paths: those whose file name hashes into the held-out share, else the one with the
 * smallest hash; never all of them. Adding files to a folder of more than some dozens moves no other file.
 */
export function heldOutOf(paths: readonly string[]): Set<string> {
  if (paths.length < 2) return new Set();
  const key = (file: string) => path.posix.basename(file);
  const byHash = [...paths].sort((a, b) => hash32(key(a)) - hash32(key(b)) || (a < b ? -1 : 1));
  const count = paths.filter((file) => isHeldOutKey(key(file))).length;
  return new Set(byHash.slice(0, Math.min(Math.max(1, count), paths.length - 1)));
}

function at<T>(list: readonly T[], index: number): T {
  const value = list[index];
  if (value === undefined) throw new ShapeError(`dataset: index ${index} is outside the ${list.length} images.`);
  return value;
}
