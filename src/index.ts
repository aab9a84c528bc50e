// The package in Node: making images, training, and what needs files.

export * from "./library.js";
export * from "./node-inference.js";
export {
  type CaptionSource,
  type DatasetOptions,
  encodeDataset,
  type FineTuneOptions,
  type FineTuneResult,
  fineTune,
  type ImageDataset,
  noisePredictionError,
  openDataset,
  Trainer,
  type TrainerOptions,
  trainingScheduler,
} from "./training/index.js";
