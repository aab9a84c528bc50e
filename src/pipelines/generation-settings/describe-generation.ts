// The settings of a call of `generate`, its defaults filled in.

import type { ImageTensor } from "../../images/image-tensor.js";
import type { Scheduler } from "../../schedulers/index.js";
import type { GenerateOptions } from "../generate-options.js";
import { samplerOf, scheduleTypeOf } from "./sampler-names.js";
import type { GenerationSettings } from "./settings.js";

const STEPS = 25;

/** What of a pipeline the settings depend on. */
export interface DescribedPipeline {
  scheduler: Scheduler;
  defaultGuidanceScale: number;
  defaultStrength: number;
}

/**
 * What an image was made with. Names of model and adapters are the caller's to add: the pipeline knows none.
 *
 * @param options - As `generate` was given them.
 * @param made - One of its images, the seed, and its place among all.
 */
export function describeGeneration(
  pipeline: DescribedPipeline,
  options: GenerateOptions,
  made: { image: ImageTensor; seed: number; position: number; count: number },
): GenerationSettings {
  const { prompt, negativePrompt, steps = STEPS, guidanceScale, guidanceRescale, clipSkip, numImages = 1 } = options;
  const { className, config } = options.scheduler ?? pipeline.scheduler;
  const index = Math.floor(made.position / numImages);
  const sampler = samplerOf(className, config) ?? className;
  const scheduleType = scheduleTypeOf(config);
  const negative = typeof negativePrompt === "string" ? negativePrompt : negativePrompt?.[index];
  return {
    prompt: typeof prompt === "string" ? prompt : prompt[index]!,
    ...(negative !== undefined && { negativePrompt: negative }),
    steps,
    ...(sampler !== undefined && { sampler }),
    ...(scheduleType !== undefined && { scheduleType }),
    guidanceScale: guidanceScale ?? pipeline.defaultGuidanceScale,
    ...(guidanceRescale && { guidanceRescale }),
    ...(clipSkip && { clipSkip }),
    seed: made.seed,
    width: made.image.width,
    height: made.image.height,
    ...(made.count > 1 && { batch: { size: made.count, position: made.position } }),
    ...(options.image && { strength: options.strength ?? pipeline.defaultStrength }),
  };
}
