// The package in Node: making images, training, and what needs files.

export * from "./library.js";
export * from "./node-inference.js";

// Ranks of one training

export { joinMpi, type MpiOptions, type RankGroup } from "./distributed/index.js";

// Data and training

export {
  type BestStep,
  type BucketOptions,
  bucketsOf,
  type CaptionSource,
  type ContactSheetOptions,
  type DatasetOptions,
  type ErrorAtTimesteps,
  encodeDataset,
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  type FolderCaptionSource,
  fineTune,
  type GatesAtStep,
  type ImageBucket,
  type ImageDataset,
  type ImagePlacement,
  type ImageShape,
  type ImageTraits,
  type ImageVariant,
  type MemoryPhase,
  type MemoryPlan,
  type MonitorPhase,
  openDataset,
  renderContactSheet,
  type ShapedImages,
  type Skipped,
  type StepCompiler,
  type StepMeasures,
  type StepReport,
  type TextConditionedDenoiser,
  TextTraining,
  type TextTrainingOptions,
  Trainer,
  type TrainerOptions,
  type TrainingResult,
  textEncoderConfig,
  type ValidationReport,
} from "./training/index.js";
