// The package in Node: making images, training, and what needs files.

export * from "./library.js";
export * from "./node-inference.js";

// Data and training

export {
  type BucketOptions,
  bucketsOf,
  type CaptionSource,
  type ContactSheetOptions,
  type DatasetOptions,
  encodeDataset,
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  type FolderCaptionSource,
  fineTune,
  type ImageBucket,
  type ImageDataset,
  type ImagePlacement,
  type ImageShape,
  type ImageTraits,
  type ImageVariant,
  openDataset,
  renderContactSheet,
  type Skipped,
  type StepReport,
  TextTraining,
  type TextTrainingOptions,
  Trainer,
  type TrainerOptions,
  type TrainingResult,
  textEncoderConfig,
} from "./training/index.js";
