// One interface over the sources of training images, split into what is trained on and what is held out. Node only.

import { createHash } from "node:crypto";
import { ConfigError, quoted, ShapeError } from "../../errors.js";
import { type BucketOptions, shapeChooser } from "./buckets.js";
import type { Skipped } from "./folder-walk.js";
import { DEFAULT_VALIDATION_SPLIT, emptySplit, heldOutOf } from "./hold-out.js";
import { type IconDatasetOptions, openIcons } from "./icon-dataset.js";
import type { ImageDataset } from "./image-dataset.js";
import { alphaPlane, checkColour, imagePlanes, maskPlane, readingVersion } from "./image-pixels.js";
import { placementOf } from "./image-placement.js";
import type { ImageShape } from "./image-variant.js";
import { type OpenSourceOptions, openSource, parseDataSpec } from "./open-source.js";
import { balancedRepeats } from "./regularization.js";
import type { SourceImage } from "./source-image.js";

export type { CaptionSource, ImageDataset } from "./image-dataset.js";

/** Which images of a source are meant. */
export const DATASET_SPLITS = ["heldOut", "train", "all"] as const;

/** Options of `openDataset`. */
export interface DatasetOptions
  extends Omit<OpenSourceOptions, "isRegularization">,
    BucketOptions,
    Pick<IconDatasetOptions, "skinTones" | "names"> {
  /** The training's resolution R, in pixels. */
  size: number;
  /** "train" by default. */
  split?: (typeof DATASET_SPLITS)[number] | undefined;
  /** Share of the images that is held out, 0 to below 1; 0.05 by default, 0 holds none out. */
  validationSplit?: number | undefined;
  /** How often each image comes in an epoch, times what its folder says; 1 by default. */
  repeats?: number | undefined;
  /** What lies behind transparent parts, as a CSS colour; white by default. */
  background?: string | undefined;
  /** Comes before every caption, and a space; not before those of regularization images. */
  captionPrefix?: string | undefined;
  /** Comes after every caption, as `captionPrefix` does before. */
  captionSuffix?: string | undefined;
  /** Regularization images, which show the class at large: as `spec`. */
  regularizationData?: string | readonly string[] | undefined;
  /** Factor of their loss; 1 by default. */
  regularizationWeight?: number | undefined;
}

/**
 * Opens training images by name: `icons:STYLE`, such as `icons:openmoji`; or one or more of: the path of a folder of images,
 * of a Parquet file or a folder of such, the id of a data set on the hub; each with `=N` behind it to come N times an epoch.
 *
 * Of N images ⌊`validationSplit` · N⌋ are held out, always the same ones: by each file's path in the folder, so that fewer
 * than 20 images are all trained on by default. Of icons about that share is, by drawing, and alike in all styles.
 * Regularization images, those of `regularizationData` and of folders named `reg`, are never held out; they come as often
 * together as what is trained on (`balancedRepeats`), and those that are not needed are left out.
 *
 * @throws {ConfigError} If the style or an option is unknown, or the split holds no image.
 * @throws {FormatError} As `openSource`.
 */
export async function openDataset(spec: string | readonly string[], options: DatasetOptions): Promise<ImageDataset> {
  const { split = "train", validationSplit: share = DEFAULT_VALIDATION_SPLIT } = options;
  const specs = typeof spec === "string" ? [spec] : spec;
  checkOptions(specs, options);
  const isInSplit = (held: boolean): boolean => split === "all" || held === (split === "heldOut");
  const icons = specs.find((one) => one.startsWith("icons:"));
  if (icons === undefined) {
    if (options.names !== undefined)
      throw new ConfigError("dataset: names chooses among icons; of a folder, copy the images.");
    return openFiles(specs, isInSplit, share, options);
  }
  if (specs.length > 1) throw new ConfigError(`dataset: ${quoted(icons)} is data by itself; got ${quoted(specs)}.`);
  return openIcons(icons, isInSplit, share, options);
}

function checkOptions(specs: readonly string[], options: DatasetOptions): void {
  const { size, split = "train", validationSplit: share = 0, repeats = 1, regularizationWeight: weight = 1 } = options;
  if (!DATASET_SPLITS.includes(split)) {
    throw new ConfigError(`dataset: split must be one of ${DATASET_SPLITS.join(", ")}; got ${quoted(split)}.`);
  }
  if (!(typeof share === "number" && share >= 0 && share < 1)) {
    throw new ConfigError(`dataset: validationSplit must be a number from 0 to below 1; got ${quoted(share)}.`);
  }
  for (const [name, value] of Object.entries({ size, repeats })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new ConfigError(`dataset: ${name} must be a positive integer; got ${quoted(value)}.`);
    }
  }
  if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) {
    throw new ConfigError(`dataset: regularizationWeight must be a finite number, 0 or more; got ${quoted(weight)}.`);
  }
  if (specs.length === 0) throw new ConfigError("dataset: name at least one folder of images; got none.");
}

/** An image among all that are opened together. */
interface NamedImage extends SourceImage {
  name: string;
}

async function openFiles(
  specs: readonly string[],
  isInSplit: (held: boolean) => boolean,
  share: number,
  options: DatasetOptions,
): Promise<ImageDataset> {
  const { size, repeats = 1, background = "white", regularizationWeight = 1 } = options;
  const shapeOf = shapeChooser(size, options);
  await checkColour(background);
  const regularization = options.regularizationData ?? [];
  const regularizationSpecs = typeof regularization === "string" ? [regularization] : regularization;
  const { images, skipped } = await openAll(specs, regularizationSpecs, options);

  const candidates = images
    .filter(({ isRegularization }) => !isRegularization)
    .map(({ name, contentHash }) => ({ path: name, contentHash }));
  if (candidates.length === 0) {
    throw new ConfigError(`dataset: all ${images.length} images of ${quoted(specs)} are regularization images.`);
  }
  const held = heldOutOf(candidates, share);
  const trained = new Set(candidates.flatMap(({ path, contentHash }) => (held.has(path) ? [] : [contentHash])));
  const heldOutCopies = candidates.filter(({ path, contentHash }) => held.has(path) && trained.has(contentHash)).length;
  const learned = images.filter(({ name, isRegularization }) => !isRegularization && isInSplit(held.has(name)));
  if (learned.length === 0) throw emptySplit(specs.join(", "), candidates.length, share);

  const countOf = new Map(learned.map((image) => [image, image.repeats * repeats]));
  const epoch = [...countOf.values()].reduce((sum, count) => sum + count, 0);
  const classImages = isInSplit(false) ? images.filter(({ isRegularization }) => isRegularization) : [];
  const balanced = balancedRepeats(
    classImages.map((image) => image.repeats),
    epoch,
  );
  for (const [i, image] of classImages.entries()) {
    if (balanced[i]! > 0) countOf.set(image, balanced[i]!);
    else skipped.push({ path: image.name, reason: "is not needed: there are more regularization images than others" });
  }
  const used = images.filter((image) => countOf.has(image));
  return fileDataset(used, countOf, {
    ...{ size, background, shapeOf, regularizationWeight, heldOutCopies, skipped },
    mask: options.mask ?? false,
    affixes: [options.captionPrefix, options.captionSuffix],
    heldOut: held.size,
    version: await readingVersion(),
  });
}

async function openAll(
  specs: readonly string[],
  regularizationSpecs: readonly string[],
  options: DatasetOptions,
): Promise<{ images: NamedImage[]; skipped: Skipped[] }> {
  const images: NamedImage[] = [];
  const skipped: Skipped[] = [];
  const places = [
    ...specs.map((spec) => ({ spec, isRegularization: false })),
    ...regularizationSpecs.map((spec) => ({ spec, isRegularization: true })),
  ];
  const labels = new Set<string>();
  for (const { spec, isRegularization } of places) {
    const { location, repeats } = await parseDataSpec(spec);
    const source = await openSource(location, { ...options, isRegularization });
    // One place's names stay as they are; of several they begin with the folder's own name, wherever it lies.
    const own = location.split(/[/\\]/).findLast((part) => part !== "" && part !== ".") ?? "data";
    let label = own;
    for (let number = 2; labels.has(label); number++) label = `${own} ${number}`;
    labels.add(label);
    const nameOf = (path: string) => (places.length === 1 ? path : `${label}/${path}`);
    images.push(
      ...source.images.map((image) => ({ ...image, name: nameOf(image.path), repeats: image.repeats * repeats })),
    );
    skipped.push(...source.skipped.map(({ path, reason }) => ({ path: nameOf(path), reason })));
  }
  return { images, skipped };
}

interface FileDatasetOptions extends Pick<ImageDataset, "heldOut" | "heldOutCopies" | "skipped"> {
  size: number;
  background: string;
  mask: boolean;
  /** Before and after every caption. */
  affixes: readonly [string | undefined, string | undefined];
  shapeOf: (own: ImageShape) => ImageShape;
  regularizationWeight: number;
  version: string;
}

function fileDataset(
  images: readonly NamedImage[],
  countOf: ReadonlyMap<NamedImage, number>,
  { size, background, mask, affixes, shapeOf, regularizationWeight, version, ...counts }: FileDatasetOptions,
): ImageDataset {
  const imageAt = (index: number): NamedImage => {
    const image = images[index];
    if (!image) throw new ShapeError(`dataset: index ${index} is outside the ${images.length} images.`);
    return image;
  };
  const usesAlpha = ({ readMask, isTransparent }: NamedImage) => mask && !readMask && isTransparent;
  const shapeAt = (index: number) => shapeOf(imageAt(index).own);
  return {
    ...counts,
    size: images.length,
    imageSize: size,
    hasMasks: images.some((image) => image.readMask !== undefined || usesAlpha(image)),
    name: (index) => imageAt(index).name,
    caption: (index) => {
      const { caption, isRegularization } = imageAt(index);
      if (isRegularization) return caption;
      return [affixes[0], caption, affixes[1]].filter((text) => text).join(" ");
    },
    captionSource: (index) => imageAt(index).captionSource,
    contentHash: (index) => {
      const { contentHash, maskHash } = imageAt(index);
      if (maskHash === undefined) return contentHash;
      return createHash("sha256").update(`${contentHash} ${maskHash}`).digest("hex");
    },
    pixelKey: (index) => {
      const image = imageAt(index);
      const { width, height } = shapeAt(index);
      const parts = [image.contentHash, `${width}×${height}`, version];
      if (image.isTransparent) parts.push(`on ${background}`);
      if (image.maskHash !== undefined) parts.push(`mask ${image.maskHash}`);
      if (usesAlpha(image)) parts.push("mask alpha");
      return parts.join(" ");
    },
    shape: shapeAt,
    image: async (index, variant = {}) => {
      const image = imageAt(index);
      return imagePlanes(await image.read(), image.file, {
        ...variant,
        ...{ background, traits: image, shape: shapeAt(index) },
      });
    },
    mask: async (index, variant = {}) => {
      const image = imageAt(index);
      const shape = shapeAt(index);
      if (usesAlpha(image)) return alphaPlane(await image.read(), image.file, { ...variant, traits: image, shape });
      if (!image.readMask) return undefined;
      // A mask may have other pixels than its image; it is scaled to the same size and cut at the same place.
      return maskPlane(await image.readMask(), `the mask of ${image.file}`, {
        ...variant,
        ...{ traits: { own: image.own, isDrawing: false }, shape },
      });
    },
    placement: async (index, { crop } = {}) => {
      const image = imageAt(index);
      return placementOf(image.isDrawing ? undefined : image.own, shapeAt(index), crop);
    },
    lossWeight: (index) => (imageAt(index).isRegularization ? regularizationWeight : 1),
    isRegularization: (index) => imageAt(index).isRegularization,
    repeats: (index) => countOf.get(imageAt(index))!,
    traits: (index) => {
      const { own, isDrawing, isTurned, isAnimated, isTransparent, contentHash } = imageAt(index);
      return { own, isDrawing, isTurned, isAnimated, isTransparent, fileHash: contentHash };
    },
  };
}
