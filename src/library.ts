// What every platform offers: making images, and training. The entries index.ts (Node) and web.ts (browser) add their
// backend and their storage.

export * from "./inference.js";

// Gradients of graphs

export { type GradientOptions, gradients } from "./autodiff/index.js";

// What is learned

export {
  createObjective,
  type DynamicShiftConfig,
  drawNoise,
  drawTimesteps,
  dynamicShift,
  dynamicShiftMu,
  type HuberSchedule,
  type LevelWeight,
  type LossInputName,
  type LossInputs,
  type LossKind,
  type LossTerms,
  type LossWeighting,
  type LossWeightingOptions,
  lossMaskOf,
  lossWeighting,
  type MaskOptions,
  type NoisedBatch,
  type NoiseLevel,
  type NoiseOptions,
  type Objective,
  type ObjectiveOptions,
  pointwiseLoss,
  samplingConfig,
  type TimestepDraw,
  type TimestepOptions,
  type TimestepSampling,
  type TrainedPrediction,
  type TrainingNoise,
} from "./diffusion/index.js";

// Training without files

export { type AverageOptions, ParameterAverage } from "./training/average.js";
export {
  type BatchOptions,
  type BatchStreamState,
  DiffusionBatches,
  type RowVariation,
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
  type LearningRateShape,
  learningRateSchedule,
} from "./training/learning-rate.js";
export {
  type BatchPart,
  type DrawnBatch,
  diffusionBatch,
  type NoisedBatchOptions,
  type NoisingOptions,
  noisedBatch,
} from "./training/noised-batch.js";
export {
  Adafactor,
  type AdafactorOptions,
  AdamW,
  AdamW8bit,
  type AdamW8bitOptions,
  type AdamWOptions,
  createOptimizer,
  type ElementwiseOptimizer,
  type GraphStep,
  Lion,
  type LionOptions,
  Muon,
  type MuonOptions,
  type MuonRate,
  OPTIMIZER_NAMES,
  type Optimizer,
  type OptimizerName,
  type ParameterState,
  type ParameterUpdate,
  Prodigy,
  type ProdigyOptions,
  ScheduleFreeAdamW,
  type ScheduleFreeAdamWOptions,
  type StateArray,
  type StateSlot,
  type StepRate,
} from "./training/optimizers/index.js";
export {
  type AverageSnapshot,
  POST_HOC_WIDTHS,
  PowerFunctionAverages,
  type Profile,
  postHocAverage,
  postHocWeights,
  powerOfWidth,
} from "./training/post-hoc-average.js";
export type { RowOrderState } from "./training/row-order.js";
export type {
  DeviceStepOptions,
  DeviceSteps,
  DiffusionBatch,
  SampleLosses,
  StepOutcome,
  Trainable,
} from "./training/trainable.js";
