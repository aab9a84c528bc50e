export { DEMO_STYLES, type DemoOptions, type DemoReport, EMBEDDED_MODEL, runDemo } from "./demo.js";
export { encodeDataset } from "./encode-dataset.js";
export { type EvaluationOptions, type NoisePredictionError, noisePredictionError } from "./evaluation.js";
export {
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  fineTune,
  trainingScheduler,
} from "./fine-tune.js";
