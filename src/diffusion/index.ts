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
export {
  createObjective,
  type LossInputs,
  type LossTerms,
  MEAN_SQUARED_ERROR,
  type NoisedBatch,
  type NoiseLevel,
  type Objective,
} from "./objective.js";
