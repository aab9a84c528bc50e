export {
  type Conditioning,
  type ConditioningInputs,
  concatConditioning,
  conditioningOf,
  dropConditioning,
  repeatConditioning,
  sliceConditioning,
  takeConditioning,
} from "./conditioning.js";
export { conditioningShapes } from "./conditioning-shapes.js";
export type { Denoiser, DenoiserInputs, DenoiserShape } from "./denoiser.js";
export { checkMaskOptions, lossMaskOf, type MaskOptions } from "./loss-mask.js";
export {
  type LevelWeight,
  LOSS_WEIGHTINGS,
  type LossWeighting,
  type LossWeightingOptions,
  lossWeighting,
  signalToNoise,
  WEIGHTING_DEFAULTS,
} from "./loss-weighting.js";
export { type DynamicShiftConfig, dynamicShift, dynamicShiftMu, type NoiseLevel } from "./noise-process.js";
export { createObjective, type NoisedBatch, type Objective, type ObjectiveOptions } from "./objective.js";
export {
  HUBER_DEFAULTS,
  HUBER_SCHEDULES,
  type HuberSchedule,
  LOSS_INPUT_NAMES,
  LOSS_KINDS,
  type LossInputName,
  type LossInputs,
  type LossKind,
  type LossTerms,
  MEAN_SQUARED_ERROR,
  pointwiseLoss,
} from "./pointwise-loss.js";
export { PREDICTION_TYPES, type TrainedPrediction } from "./prediction-types.js";
export { samplingConfig } from "./sampling-config.js";
export {
  checkTimestepOptions,
  drawsTimestepsFirst,
  drawTimesteps,
  TIMESTEP_DEFAULTS,
  TIMESTEP_SAMPLINGS,
  type TimestepDraw,
  type TimestepOptions,
  type TimestepSampling,
} from "./timestep-sampling.js";
export {
  checkNoiseOptions,
  DEFAULT_MULTIRES_DISCOUNT,
  drawNoise,
  type NoiseOptions,
  type TrainingNoise,
} from "./training-noise.js";
