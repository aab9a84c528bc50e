export { encodeDataset } from "../training/encode-dataset.js";
export { type EvaluationOptions, type NoisePredictionError, noisePredictionError } from "../training/evaluation.js";
export {
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  fineTune,
  trainingScheduler,
} from "../training/fine-tune.js";
export { DEMO_STYLES, type DemoOptions, type DemoReport, EMBEDDED_MODEL, runDemo } from "./demo.js";
