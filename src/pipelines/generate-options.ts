// What `generate` takes and gives. The checks are in generation-plan.ts.

import type { Scheduler } from "../schedulers/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { GenerationStep, RoutingTrace } from "./denoise.js";

/** Options of `generate` in every pipeline. P prompts, N = P · numImages images. */
export interface GenerateOptions {
  prompt: string | readonly string[];
  /** What to be guided away from: one text for all prompts, or one for each. Without one, as the model was trained. */
  negativePrompt?: string | readonly string[];
  /** Default 25. */
  steps?: number;
  /** Strength of the prompt; 1 and below is without guidance, at half the work. Default 7.5, in SDXL 5. */
  guidanceScale?: number;
  /** 0 … 1: how far guidance may not change the spread of the prediction; against glaring images. Default 0. */
  guidanceRescale?: number;
  /** Takes the text states this many layers earlier (for prompts, not for negative ones). Default 0. */
  clipSkip?: number;
  /** An integer. Default: drawn anew, and given back with the images. */
  seed?: number;
  /** Pixels; a multiple of the pipeline's `latentScale`. Default: the image's, or the size that the model was trained for. */
  width?: number;
  /** As `width`. */
  height?: number;
  /** Images per prompt. Default 1. */
  numImages?: number;
  /** What to start from: one float32 image `[3, height, width]` in −1 … 1 for all prompts, or a list of one for each. */
  image?: Tensor | readonly Tensor[];
  /** Above 0, up to 1: the share of the steps that is done from `image`; 1 leaves little of it. Default 0.8, in SDXL 0.3. */
  strength?: number;
  /** Instead of the pipeline's own, for this call. */
  scheduler?: Scheduler;
  /** Standard normal float32 noise `[N, C, h, w]` to start with, instead of what the seed gives. */
  latents?: Tensor;
  /** False leaves loaded adapters out. Default true. */
  adapters?: boolean;
  /** Called after every step; the next one waits for it. */
  onStep?: (step: GenerationStep) => void | Promise<void>;
  /** Ends the run between two steps. */
  signal?: AbortSignal;
}

/** What `generate` gives. */
export interface GenerateResult {
  /** N images `[3, height, width]` in −1 … 1; the images of one prompt are neighbours. */
  images: Tensor<"float32">[];
  /** The latents that the images were decoded from, `[N, C, h, w]`, as the diffusion model sees them. */
  latents: Tensor<"float32">;
  /** The same seed gives the same images. */
  seed: number;
  /** How the adapters were mixed, step by step; absent where there were none. */
  route?: RoutingTrace;
}
