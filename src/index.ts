// The package in Node: making images, training, and what needs files.

export * from "./library.js";
export * from "./node-inference.js";

// Data and training

export {
  type CaptionSource,
  type DatasetOptions,
  encodeDataset,
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  type FolderCaptionSource,
  fineTune,
  type ImageDataset,
  type ImagePlacement,
  openDataset,
  type Skipped,
  type StepReport,
  Trainer,
  type TrainerOptions,
  type TrainingResult,
} from "./training/index.js";
