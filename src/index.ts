// The package in Node: making images, training, and what needs files.

export * from "./library.js";
export * from "./node-inference.js";
export {
  type BatchOptions,
  type CaptionSource,
  type DatasetOptions,
  DiffusionBatches,
  type EncodedDataset,
  encodeDataset,
  type FineTuneOptions,
  type FineTuneResult,
  fineTune,
  type ImageDataset,
  noisePredictionError,
  openDataset,
  type StepReport,
  Trainer,
  type TrainerOptions,
  type TrainingResult,
} from "./training/index.js";
