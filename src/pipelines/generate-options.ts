// What `generate` takes and gives, and the checks of it that need no model.

import { ConfigError, ShapeError } from "../errors.js";
import type { Scheduler } from "../schedulers/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { GenerationStep, RoutingTrace } from "./denoise.js";

/** Options of `StableDiffusionPipeline.generate`. P prompts, N = P · numImages images. */
export interface GenerateOptions {
  prompt: string | readonly string[];
  /** What to be guided away from: one text for all prompts, or one for each. Default "". */
  negativePrompt?: string | readonly string[];
  /** Default 25. */
  steps?: number;
  /** Strength of the prompt; 1 and below is without guidance, at half the work. Default 7.5. */
  guidanceScale?: number;
  /** An integer. Default: drawn anew, and given back with the images. */
  seed?: number;
  /** Pixels; a multiple of the pipeline's `latentScale`. Default: the size that the model was trained for. */
  width?: number;
  /** As `width`. */
  height?: number;
  /** Images per prompt. Default 1. */
  numImages?: number;
  /** Instead of the pipeline's own, for this call. */
  scheduler?: Scheduler;
  /** Standard normal float32 noise `[N, C, h, w]` to start from, instead of what the seed gives. */
  latents?: Tensor;
  /** False leaves loaded adapters out. Default true. */
  adapters?: boolean;
  /** Called after every step; the next one waits for it. */
  onStep?: (step: GenerationStep) => void | Promise<void>;
  /** Ends the run between two steps. */
  signal?: AbortSignal;
}

/** What `StableDiffusionPipeline.generate` gives. */
export interface GenerateResult {
  /** N images `[3, height, width]` in −1 … 1; the images of one prompt are neighbours. */
  images: Tensor<"float32">[];
  /** The latents that the images were decoded from, `[N, C, h, w]`, as the diffusion model sees them. */
  latents: Tensor<"float32">;
  /** The same seed gives the same images. */
  seed: number;
  /** How the adapters were mixed; absent where there were none. */
  route?: RoutingTrace;
}

/** Shapes of a run. */
export interface GenerationShape {
  prompts: readonly string[];
  /** One per prompt. */
  negativePrompts: readonly string[];
  numImages: number;
  /** `[N, C, h, w]`. */
  latentShape: [number, number, number, number];
}

/**
 * @param model - Latent channels, pixels per latent pixel, and the default size in latent pixels.
 * @throws {ConfigError} If prompts, counts or scales are none.
 * @throws {ShapeError} If width or height is no multiple of the scale, or the given latents have another shape.
 */
export function generationShape(
  options: GenerateOptions,
  model: { channels: number; scale: number; height: number; width: number },
): GenerationShape {
  const { prompt, negativePrompt = "", numImages = 1, guidanceScale, seed, latents } = options;
  const prompts = textList("prompt", prompt);
  const negatives = textList("negativePrompt", negativePrompt);
  const perPrompt = typeof negativePrompt !== "string";
  if (perPrompt && negatives.length !== prompts.length) {
    throw new ConfigError(
      `generate: negativePrompt must be one text or one per prompt; got ${negatives.length} for ${prompts.length}.`,
    );
  }
  if (!Number.isSafeInteger(numImages) || numImages < 1) {
    throw new ConfigError(`generate: numImages must be a positive integer; got ${numImages}.`);
  }
  if (guidanceScale !== undefined && !Number.isFinite(guidanceScale)) {
    throw new ConfigError(`generate: guidanceScale must be a number; got ${guidanceScale}.`);
  }
  if (seed !== undefined && !Number.isSafeInteger(seed)) {
    throw new ConfigError(`generate: seed must be an integer; got ${seed}.`);
  }
  const [, , givenHeight, givenWidth] = latents?.shape ?? [];
  const latentShape: GenerationShape["latentShape"] = [
    prompts.length * numImages,
    model.channels,
    latentSize("height", options.height, model.scale) ?? givenHeight ?? model.height,
    latentSize("width", options.width, model.scale) ?? givenWidth ?? model.width,
  ];
  if (latents && (latents.dtype !== "float32" || latents.shape.join() !== latentShape.join())) {
    throw new ShapeError(
      `generate: latents must be float32 [${latentShape.join(",")}]; got ${latents.dtype} [${latents.shape.join(",")}].`,
    );
  }
  const negativePrompts = perPrompt ? negatives : prompts.map(() => negativePrompt);
  return { prompts, negativePrompts, numImages, latentShape };
}

function textList(name: string, given: string | readonly string[]): readonly string[] {
  const texts = typeof given === "string" ? [given] : given;
  if (!Array.isArray(texts) || texts.length === 0 || texts.some((text) => typeof text !== "string")) {
    throw new ConfigError(`generate: ${name} must be a text, or a list of at least one; got ${JSON.stringify(given)}.`);
  }
  return texts;
}

function latentSize(name: string, pixels: number | undefined, scale: number): number | undefined {
  if (pixels === undefined) return undefined;
  if (!Number.isSafeInteger(pixels) || pixels <= 0 || pixels % scale !== 0) {
    const below = Math.max(scale, Math.floor(pixels / scale) * scale);
    const advice = Number.isFinite(pixels) ? ` Nearest are ${below} and ${below + scale}.` : "";
    throw new ShapeError(
      `generate: ${name} must be a positive multiple of ${scale} (pixels per latent pixel); got ${pixels}.${advice}`,
    );
  }
  return pixels / scale;
}
