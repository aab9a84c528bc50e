// The icon sets as training images. Node only.

import { createHash } from "node:crypto";
import { ConfigError, ShapeError } from "../../errors.js";
import { emptySplit } from "./hold-out.js";
import {
  captionOf,
  hasSkinTone,
  type IconStyle,
  isHeldOut,
  loadIconSet,
  rasterizeIcons,
  toModelInput,
} from "./icons.js";
import type { ImageDataset } from "./image-dataset.js";
import { placementOf } from "./image-placement.js";
import { flipped } from "./image-variant.js";

/** Settings of {@link openIcons}. */
export interface IconDatasetOptions {
  size: number;
  /** Whether icons come in every skin tone; by default only the plain drawing of each. */
  skinTones?: boolean | undefined;
  /** Only these icons, as far as the style draws them; all that it has by default. */
  names?: readonly string[] | undefined;
  /** Folder for drawn icons; the user's cache folder by default, `false` for none. */
  cache?: string | false | undefined;
  background?: string | undefined;
  captionPrefix?: string | undefined;
  captionSuffix?: string | undefined;
  repeats?: number | undefined;
}

/** Raised when icons are drawn otherwise than before. */
const DRAWING = 1;

/** What is said of files only. */
const FOR_FILES = [
  ...["instancePrompt", "regularizationData", "regularizationPrompt", "imageColumn", "captionColumn"],
  ...["mask", "bucket"],
];

/**
 * Opens `icons:STYLE`.
 *
 * @param isInSplit - Whether icons that are held out, or are not, are wanted.
 * @throws {ConfigError} If the style is unknown, an option is for files, or there is none in the split.
 */
export async function openIcons(
  spec: string,
  isInSplit: (held: boolean) => boolean,
  share: number,
  options: IconDatasetOptions,
): Promise<ImageDataset> {
  const { size, skinTones = false, cache, background, captionPrefix, captionSuffix, repeats = 1 } = options;
  for (const name of FOR_FILES) {
    const value = (options as unknown as Record<string, unknown>)[name];
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) continue;
    throw new ConfigError(
      `dataset: ${name} is for folders; every icon has a name, which is its caption, and one size.`,
    );
  }
  const style = spec.slice("icons:".length) as IconStyle;
  const set = loadIconSet(style);
  const wanted = options.names?.filter((name) => set.has(name)) ?? set.names;
  const all = wanted.filter((name) => skinTones || !hasSkinTone(name));
  const names = all.filter((name) => isInSplit(isHeldOut(name, { share })));
  if (names.length === 0) throw emptySplit(spec, all.length, share);
  const pixels = await rasterizeIcons(style, names, size, {
    ...(cache !== undefined && { cache }),
    ...(background !== undefined && { background }),
  });
  const bytes = 3 * size * size;
  const nameAt = (index: number): string => {
    const name = names[index];
    if (name === undefined) throw new ShapeError(`dataset: index ${index} is outside the ${names.length} images.`);
    return name;
  };
  const hashAt = (index: number): string => {
    nameAt(index);
    return createHash("sha256")
      .update(pixels.subarray(index * bytes, (index + 1) * bytes))
      .digest("hex");
  };
  const shape = { width: size, height: size };
  return {
    size: names.length,
    imageSize: size,
    heldOut: all.filter((name) => isHeldOut(name, { share })).length,
    heldOutCopies: 0,
    skipped: [],
    hasMasks: false,
    name: nameAt,
    caption: (index) => [captionPrefix, captionOf(nameAt(index)), captionSuffix].filter((text) => text).join(" "),
    captionSource: () => "iconName",
    contentHash: hashAt,
    pixelKey: (index) => `${hashAt(index)} ${size} icons ${DRAWING}`,
    shape: () => shape,
    image: async (index, { flip } = {}) => flipped(toModelInput(pixels, size, [index]), size, flip),
    mask: async () => undefined,
    placement: async () => placementOf(undefined, shape),
    lossWeight: () => 1,
    isRegularization: () => false,
    repeats: () => repeats,
    traits: () => undefined,
  };
}
