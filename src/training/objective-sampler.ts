// The sampler for pictures of a training whose objective is another than the model's scheduler says.

import { samplingConfig } from "../diffusion/index.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { createScheduler, type Scheduler } from "../schedulers/index.js";
import type { TrainingOptionValues } from "./options/training-options.js";

/**
 * The sampler for pictures of a model that learns something else than the pipeline's scheduler says, which is told;
 * undefined for the pipeline's own.
 *
 * @throws {ConfigError} If pictures are asked for, and that sampler is not supported.
 */
export function samplerFor(
  { schedulerConfig }: AnyPipeline,
  values: TrainingOptionValues,
  tell: (message: string) => void,
): Scheduler | undefined {
  const config = samplingConfig(schedulerConfig, values);
  if (config === schedulerConfig) return undefined;
  const changed = Object.entries(config).filter(([key, value]) => schedulerConfig[key] !== value);
  tell(
    "The adapter will be for a sampler of another objective than the model's scheduler says: " +
      `${changed.map(([key, value]) => `${key} ${value}`).join(", ")}. ` +
      "Give fera generate the same --prediction-type and --zero-terminal-snr.",
  );
  return values.validationPrompts?.length ? createScheduler(config) : undefined;
}
