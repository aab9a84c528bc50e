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
