// What every platform offers: making images, and training. The entries index.ts (Node) and web.ts (browser) add their
// backend and their storage.

export * from "./inference.js";

// Gradients of graphs

export { type GradientOptions, gradients } from "./autodiff/index.js";

// What is learned

export {
  createObjective,
  type LossInputs,
  type LossTerms,
  type NoisedBatch,
  type NoiseLevel,
  type Objective,
} from "./diffusion/index.js";

// Training without files

export { ParameterAverage } from "./training/average.js";
export {
  type BatchOptions,
  type BatchStreamState,
  DiffusionBatches,
  type RowVariation,
  type TimestepSampling,
} from "./training/diffusion-batches.js";
export type {
  EncodedDataset,
  EncodedRowBatch,
  EncodedRows,
  LatentSize,
  RowDraw,
} from "./training/encoded-dataset.js";
export { type EvaluationOptions, type NoisePredictionError, noisePredictionError } from "./training/evaluation.js";
export {
  type LearningRateOptions,
  type LearningRateScheduleName,
  learningRateSchedule,
} from "./training/learning-rate.js";
export { diffusionBatch } from "./training/noised-batch.js";
export { AdamW, type AdamWOptions } from "./training/optimizers/adamw.js";
export { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./training/optimizers/create-optimizer.js";
export { Lion, type LionOptions } from "./training/optimizers/lion.js";
export type { GraphStep, Optimizer, StateSlot } from "./training/optimizers/optimizer.js";
export type { RowOrderState } from "./training/row-order.js";
export type {
  DeviceStepOptions,
  DeviceSteps,
  DiffusionBatch,
  StepOutcome,
  Trainable,
} from "./training/trainable.js";
