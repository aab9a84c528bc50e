// How a fine-tuning keeps below its memory limit, by its options. Node only.

import type { AdapterModel } from "../../adapters/index.js";
import { createObjective } from "../../diffusion/index.js";
import type { ImageDataset } from "../data/dataset.js";
import type { RowVariation } from "../diffusion-batches.js";
import { createOptimizer } from "../optimizers/index.js";
import { objectiveOptionsOf } from "../options/objective-options.js";
import type { TrainingOptionValues } from "../options/training-options.js";
import { memoryBytes } from "./memory-plan.js";
import { type FittedTraining, fitTraining, type TrainedParts } from "./training-memory.js";

/** Measurements of the validation loss, where nothing else is said. */
const VALIDATIONS = 10;

/** Steps between measurements of the validation loss; 0 for none. */
export const validationLossStepsOf = (values: TrainingOptionValues, data: ImageDataset | undefined): number =>
  values.validationLossEvery ?? (data ? Math.max(1, Math.floor(values.steps / VALIDATIONS)) : 0);

/** How the training keeps below its memory limit; undefined without one. @throws {ConfigError} If it cannot. */
export async function fitWithin(
  values: TrainingOptionValues,
  parts: Pick<TrainedParts, "pipeline" | "dataset" | "trained" | "trainsText"> & {
    model: AdapterModel;
    validationDataset?: ImageDataset | undefined;
    stateOnDevice?: boolean | undefined;
    variation: RowVariation;
    batchSize: number;
  },
): Promise<FittedTraining | undefined> {
  if (values.memoryLimit === undefined) return undefined;
  const { pipeline, dataset, model, variation, trainsText } = parts;
  const { cacheLatents = "disk", cacheTextEncoderOutputs = "disk", validationPrompts = [] } = values;
  const measures = parts.validationDataset && validationLossStepsOf(values, parts.validationDataset) > 0;
  const keepsStateThere = values.gradientAccumulation === 1 && parts.stateOnDevice === true;
  return fitTraining(
    {
      ...{ pipeline, dataset, trained: parts.trained, trainsText },
      predictor: measures ? () => model : undefined,
      stepOptions: {
        tokens: pipeline.captionTokens(dataset.caption(0)),
        mixedPrecision: values.mixedPrecision,
        objective: createObjective(pipeline.schedulerConfig, objectiveOptionsOf(values)),
        stateOnDevice: keepsStateThere,
        ...(keepsStateThere && { optimizer: createOptimizer(values.optimizer, { lr: 1 }) }),
      },
      batchSize: parts.batchSize,
      gradientCheckpointing: values.gradientCheckpointing,
      keepsLatents: !values.randomCrop && cacheLatents !== "none",
      keepsText: variation.caption === undefined && cacheTextEncoderOutputs !== "none",
      drawing:
        validationPrompts.length > 0
          ? { prompts: validationPrompts, size: dataset.imageSize, guidanceScale: values.validationGuidanceScale }
          : undefined,
    },
    memoryBytes(values.memoryLimit),
  );
}
