// Shapes that images are trained at, by their proportions, and the images of each: a batch holds one shape only.

import { ConfigError } from "../../errors.js";
import type { ImageShape } from "./image-variant.js";

/** Images of one shape. */
export interface ImageBucket extends ImageShape {
  /** Of the images, ascending. */
  readonly indices: readonly number[];
}

/** What {@link bucketsOf} needs of a dataset. */
export interface ShapedImages {
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
  return [...buckets.values()].sort(narrowFirst);
}

/** Which shapes there are; names and meaning as kohya's scripts have them (`min_bucket_reso`, `bucket_reso_steps`, …). */
export interface BucketOptions {
  /** Whether images keep about their proportions; otherwise all are cut to a square. */
  bucket?: boolean | undefined;
  /** Shortest side; half the resolution by default. */
  bucketMin?: number | undefined;
  /** Longest side; twice the resolution by default. */
  bucketMax?: number | undefined;
  /** Sides are multiples of this; `DEFAULT_BUCKET_STEP` by default. */
  bucketStep?: number | undefined;
  /** Whether images smaller than the resolution keep their size, in buckets of their own. */
  bucketNoUpscale?: boolean | undefined;
}

/** 8 pixels per latent pixel, times the three halvings of Stable Diffusion's UNets. */
export const DEFAULT_BUCKET_STEP = 64;

/**
 * How images of any size get a shape.
 *
 * R resolution. Without buckets R×R. With them the shape nearest in proportion of all whose sides are multiples of the
 * step between the shortest and the longest side, with at most R² pixels; for each width the highest of them. Without
 * upscaling an image is first scaled down to R² pixels if it has more, and then cut to the multiples of the step below.
 *
 * @throws {ConfigError} If a limit contradicts another or the resolution.
 */
export function shapeChooser(resolution: number, options: BucketOptions): (own: ImageShape) => ImageShape {
  const { bucket = false, bucketNoUpscale = false, bucketStep: step = DEFAULT_BUCKET_STEP } = options;
  if (!bucket) {
    for (const name of ["bucketMin", "bucketMax", "bucketStep", "bucketNoUpscale"] as const) {
      if (options[name] === undefined || options[name] === false) continue;
      throw new ConfigError(`dataset: ${name} says how buckets are made; give bucket, too.`);
    }
    return () => ({ width: resolution, height: resolution });
  }
  if (resolution < step) {
    throw new ConfigError(
      `dataset: with buckets the resolution must be at least bucketStep; got ${resolution} and ${step}. ` +
        "Give a smaller bucketStep.",
    );
  }
  const shortest = toStep(options.bucketMin ?? resolution / 2, step, Math.ceil);
  const longest = toStep(options.bucketMax ?? resolution * 2, step, Math.floor);
  if (shortest > resolution || longest < resolution - (resolution % step)) {
    throw new ConfigError(
      `dataset: the resolution ${resolution} must lie between bucketMin and bucketMax, whole steps of ${step}: ` +
        `got ${shortest} and ${longest}.`,
    );
  }
  if (bucketNoUpscale) return (own) => shapeWithoutUpscaling(own, { resolution, shortest, longest, step });
  const shapes = bucketShapes(resolution, shortest, longest, step);
  return (own) => nearestShape(own, shapes);
}

function toStep(side: number, step: number, round: (value: number) => number): number {
  return Math.max(1, round(side / step)) * step;
}

/** All buckets of a resolution, as `make_bucket_resolutions` of kohya's scripts makes them. */
export function bucketShapes(resolution: number, shortest: number, longest: number, step: number): ImageShape[] {
  const area = resolution ** 2;
  const square = resolution - (resolution % step);
  const shapes = new Map([[square, new Set([square])]]);
  const add = (width: number, height: number) => shapes.set(width, (shapes.get(width) ?? new Set()).add(height));
  for (let width = shortest; width <= longest; width += step) {
    const height = Math.min(longest, Math.floor(area / width / step) * step);
    if (height < shortest) continue;
    add(width, height);
    add(height, width);
  }
  return [...shapes].flatMap(([width, heights]) => [...heights].map((height) => ({ width, height }))).sort(narrowFirst);
}

/** Nearest in log(w / h), so that an image and its transpose get transposed shapes; of two as near the narrower one. */
function nearestShape(own: ImageShape, shapes: readonly ImageShape[]): ImageShape {
  const same = shapes.find(({ width, height }) => width === own.width && height === own.height);
  if (same) return same;
  const error = ({ width, height }: ImageShape) => Math.abs(Math.log((width * own.height) / (height * own.width)));
  return shapes.reduce((best, shape) => (error(shape) < error(best) ? shape : best));
}

function shapeWithoutUpscaling(
  own: ImageShape,
  { resolution, shortest, longest, step }: { resolution: number; shortest: number; longest: number; step: number },
): ImageShape {
  const scale = Math.min(1, resolution / Math.sqrt(own.width * own.height));
  // 320 · (512 / 640) is a little more or less than 256.
  const below = (side: number) => Math.floor((side * scale) / step + 1e-9) * step;
  // A side below one step is scaled up after all, by the least that is possible.
  const within = (side: number, least: number) => Math.min(longest, Math.max(least, below(side)));
  const least = scale < 1 ? shortest : step;
  return { width: within(own.width, least), height: within(own.height, least) };
}

const narrowFirst = (a: ImageShape, b: ImageShape): number => a.width - b.width || a.height - b.height;
