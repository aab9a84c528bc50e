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
export type { Denoiser, DenoiserInputs, DenoiserShape } from "./denoiser.js";
