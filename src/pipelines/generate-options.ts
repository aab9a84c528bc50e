// What `generate` takes and gives. The checks are in generation-plan.ts.

import type { ImageTensor } from "../images/image-tensor.js";
import type { Scheduler } from "../schedulers/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { AdapterChoice } from "./adapter-set.js";
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
  /** For models that were trained with classes: one for all images, or one per prompt. See the model's inputs. */
  classLabels?: Tensor | number | readonly number[];
  /**
   * For models that were distilled with guidance (LCM): float32, one row for all images or one per prompt. By default the
   * embedding of `guidanceScale`. Such models run without a negative prompt.
   */
  timestepCond?: Tensor;
  /** Instead of the pipeline's own, for this call. */
  scheduler?: Scheduler;
  /** Standard normal float32 noise `[N, C, h, w]` to start with, instead of what the seed gives. */
  latents?: Tensor;
  /**
   * False leaves loaded adapters out; true (default) takes those in use. A list has one entry per prompt: true, false, a
   * name, names, or names with scales, so that one batch has several adapters: `["inks", { inks: 0.5, film: 1 }, false]`.
   */
  adapters?: boolean | readonly AdapterChoice[];
  /** False leaves the images out: the result has their latents. Default true. */
  decodes?: boolean;
  /** Called after every step; the next one waits for it. */
  onStep?: (step: GenerationStep) => void | Promise<void>;
  /** Called as parts of the work are done, the steps among them. */
  onProgress?: (progress: GenerationProgress) => void;
  /** Ends the run between two steps, with the signal's reason: by default a DOMException named AbortError. */
  signal?: AbortSignal;
}

/** How far a run is. */
export interface GenerationProgress {
  /** Prompts to text states, start images to latents, steps, latents to images; in this order. */
  phase: "text" | "image" | "sampling" | "decoding";
  done: number;
  /** Of this phase. */
  total: number;
}

/** What `generate` gives. */
export interface GenerateResult {
  /** N images `[3, height, width]` in −1 … 1; the images of one prompt are neighbours. */
  images: ImageTensor[];
  /** The latents that the images were decoded from, `[N, C, h, w]`, as the diffusion model sees them. */
  latents: Tensor<"float32">;
  /** The same seed gives the same images. */
  seed: number;
  /** How the first routed adapter was mixed, step by step; absent where there was none. */
  route?: RoutingTrace;
  /** Of every routed adapter, by its name; empty where there was none. */
  routes: ReadonlyMap<string, RoutingTrace>;
}
