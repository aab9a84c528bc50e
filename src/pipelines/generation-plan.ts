// The options of `generate`, checked and completed, before any work is done.

import { ConfigError, quoted, ShapeError } from "../errors.js";
import { concatRows } from "../tensor/rows.js";
import { Tensor } from "../tensor/tensor.js";
import type { GenerateOptions } from "./generate-options.js";

/** How far image values may lie outside −1 … 1, for rounding. */
const IMAGE_SLACK = 1e-3;

/** What a pipeline brings to its options. */
export interface PlanDefaults {
  /** Latent channels. */
  channels: number;
  /** Pixels per latent pixel. */
  scale: number;
  /** Default size in latent pixels. */
  height: number;
  width: number;
  guidanceScale: number;
  strength: number;
  /** Latent pixels that sides are multiples of. Default 1. */
  patch?: number;
  /** How far guidance goes, by the scale that was asked for: s in u + s · (c − u), without an unconditional part up to 1. */
  guidanceFactor(guidanceScale: number): number;
  /** Whether from an image ⌈steps · strength⌉ steps are done, not ⌊steps · strength⌋. Default false. */
  roundsStepsUp?: boolean;
}

/** A run, checked. */
export interface GenerationPlan {
  prompts: readonly string[];
  /** One per prompt; undefined where none was given. */
  negativePrompts: readonly string[] | undefined;
  numImages: number;
  steps: number;
  /** How many of the scheduler's first timesteps are left out; 0 without an image. */
  firstStep: number;
  guidanceScale: number;
  /** s in u + s · (c − u). */
  guidanceFactor: number;
  /** Whether the unconditional prediction is needed. */
  guides: boolean;
  guidanceRescale: number;
  clipSkip: number;
  /** `[N, C, h, w]`. */
  latentShape: [number, number, number, number];
  /** `[1 or P, 3, H, W]`. */
  startImages: Tensor<"float32"> | undefined;
}

/**
 * @throws {ConfigError} If prompts, counts, scales or an image's values are none.
 * @throws {ShapeError} If width or height is no multiple of the scale, or an image or the latents have another shape.
 */
export function generationPlan(options: GenerateOptions, defaults: PlanDefaults): GenerationPlan {
  const { steps = 25, numImages = 1, clipSkip = 0, seed, latents } = options;
  const { guidanceScale = defaults.guidanceScale, guidanceRescale = 0 } = options;
  const prompts = textList("prompt", options.prompt);
  const negativePrompts = promptsLike("negativePrompt", options.negativePrompt, prompts);
  checkCount("steps", steps, 1);
  checkCount("numImages", numImages, 1);
  checkCount("clipSkip", clipSkip, 0);
  if (!Number.isFinite(guidanceScale)) {
    throw new ConfigError(`generate: guidanceScale must be a number; got ${guidanceScale}.`);
  }
  if (!(guidanceRescale >= 0 && guidanceRescale <= 1)) {
    throw new ConfigError(`generate: guidanceRescale must lie in 0 … 1; got ${guidanceRescale}.`);
  }
  if (seed !== undefined && !Number.isSafeInteger(seed)) {
    throw new ConfigError(`generate: seed must be an integer; got ${seed}.`);
  }

  const { scale, patch = 1 } = defaults;
  const asked = {
    height: latentSize("height", options.height, scale, patch),
    width: latentSize("width", options.width, scale, patch),
  };
  const startImages = imageBatch(options.image, prompts.length, scale, patch);
  const [, , imageHeight, imageWidth] = startImages?.shape ?? [];
  const [, , noiseHeight, noiseWidth] = latents?.shape ?? [];
  const size = (name: "height" | "width", ofImage: number | undefined, ofNoise: number | undefined): number => {
    if (ofImage === undefined) return asked[name] ?? ofNoise ?? defaults[name];
    if (options[name] !== undefined && options[name] !== ofImage) {
      throw new ShapeError(
        `generate: ${name} must be the image's, ${ofImage}; got ${options[name]}. Scale the image, or leave ${name} out.`,
      );
    }
    return ofImage / defaults.scale;
  };
  const latentShape: GenerationPlan["latentShape"] = [
    prompts.length * numImages,
    defaults.channels,
    size("height", imageHeight, noiseHeight),
    size("width", imageWidth, noiseWidth),
  ];
  if (latents && (latents.dtype !== "float32" || latents.shape.join() !== latentShape.join())) {
    throw new ShapeError(
      `generate: latents must be float32 [${latentShape.join(",")}]; got ${latents.dtype} [${latents.shape.join(",")}].`,
    );
  }
  const firstStep = startImages
    ? skippedSteps(steps, options.strength ?? defaults.strength, defaults.roundsStepsUp)
    : 0;
  if (!startImages && options.strength !== undefined) {
    throw new ConfigError("generate: strength is for runs that start from an image; give one, or leave strength out.");
  }
  const guidanceFactor = defaults.guidanceFactor(guidanceScale);
  return {
    ...{ prompts, negativePrompts, numImages, steps, firstStep },
    ...{ guidanceScale, guidanceFactor, guides: guidanceFactor > 1, guidanceRescale, clipSkip },
    ...{ latentShape, startImages },
  };
}

/**
 * One text per prompt, from one for all or one for each.
 *
 * @throws {ConfigError} If there are others than that.
 */
export function promptsLike(
  name: string,
  given: string | readonly string[] | undefined,
  prompts: readonly string[],
): readonly string[] | undefined {
  if (given === undefined) return undefined;
  const texts = textList(name, given);
  if (typeof given === "string") return prompts.map(() => given);
  if (texts.length === prompts.length) return texts;
  throw new ConfigError(
    `generate: ${name} must be one text or one per prompt; got ${texts.length} for ${prompts.length}.`,
  );
}

function textList(name: string, given: string | readonly string[]): readonly string[] {
  const texts = typeof given === "string" ? [given] : given;
  if (!Array.isArray(texts) || texts.length === 0 || texts.some((text) => typeof text !== "string")) {
    throw new ConfigError(`generate: ${name} must be a text, or a list of at least one; got ${quoted(given)}.`);
  }
  return texts;
}

function checkCount(name: string, value: number, least: 0 | 1): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  const rule = least === 1 ? "a positive integer" : "an integer of 0 or more";
  throw new ConfigError(`generate: ${name} must be ${rule}; got ${value}.`);
}

/** The last ⌊steps · strength⌋ steps are done, or ⌈steps · strength⌉. */
function skippedSteps(steps: number, strength: number, roundsUp = false): number {
  if (!(strength > 0 && strength <= 1)) {
    throw new ConfigError(`generate: strength must be above 0, and 1 at most; got ${strength}.`);
  }
  // Subtracted before it is rounded, as diffusers does: steps · strength may be a whole number but for the last digit.
  const done = roundsUp ? steps - Math.floor(steps - steps * strength) : Math.floor(steps * strength);
  if (done >= 1) return steps - done;
  throw new ConfigError(
    `generate: strength ${strength} of ${steps} steps leaves none to do; ` +
      `it takes a strength of ${1 / steps} or more, or ${Math.ceil(1 / strength)} steps.`,
  );
}

function imageBatch(
  given: Tensor | readonly Tensor[] | undefined,
  prompts: number,
  scale: number,
  patch: number,
): Tensor<"float32"> | undefined {
  if (given === undefined) return undefined;
  const images = Array.isArray(given) ? (given as readonly Tensor[]) : [given as Tensor];
  if (images.length !== 1 && images.length !== prompts) {
    throw new ConfigError(`generate: image must be one, or a list of one per prompt; got ${images.length}.`);
  }
  const [first] = images;
  for (const image of images) {
    if (!(image instanceof Tensor)) {
      throw new ConfigError(`generate: image must be a tensor, or a list of tensors; got ${typeof image}.`);
    }
    const { shape, dtype } = image;
    const fits = shape.length === 3 && shape[0] === 3 && shape.every((size) => size > 0);
    if (!fits || dtype !== "float32" || shape.join() !== first!.shape.join()) {
      const rule = "must be float32 [3, height, width], all of one size";
      throw new ShapeError(`generate: an image ${rule}; got ${dtype} [${shape.join(",")}].`);
    }
    for (const [axis, name] of [
      [1, "height"],
      [2, "width"],
    ] as const) {
      latentSize(`the image's ${name}`, shape[axis], scale, patch);
    }
    const wrong = (image.data as Float32Array).find((value) => !(Math.abs(value) <= 1 + IMAGE_SLACK));
    if (wrong !== undefined) {
      throw new ConfigError(`generate: an image's values must lie in -1 … 1, as readImage gives them; got ${wrong}.`);
    }
  }
  return concatRows((images as readonly Tensor<"float32">[]).map((image) => image.reshape([1, ...image.shape])));
}

function latentSize(name: string, pixels: number | undefined, scale: number, patch: number): number | undefined {
  if (pixels === undefined) return undefined;
  const step = scale * patch;
  if (!Number.isSafeInteger(pixels) || pixels <= 0 || pixels % step !== 0) {
    const below = Math.max(step, Math.floor(pixels / step) * step);
    const advice = Number.isFinite(pixels) ? ` Nearest are ${below} and ${below + step}.` : "";
    const why = patch === 1 ? "pixels per latent pixel" : "pixels per token";
    throw new ShapeError(`generate: ${name} must be a positive multiple of ${step} (${why}); got ${pixels}.${advice}`);
  }
  return pixels / scale;
}
