// The package in Node: everything in web.ts, and what needs files.

import "./storage/node.js";
import "./runtime/node.js";

export { encodeImage, encodePng, type ReadImageOptions, readImage, writeImage, writePng } from "./images/image-file.js";
export * from "./library.js";
export { fetchModel, HubError } from "./storage/hub/index.js";
export { readSafetensors, readTorch, writeSafetensors, writeTorch } from "./storage/index.js";
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

// What the signatures above mention.

export type { Skipped as SkippedFile } from "./training/data/folder-walk.js";
export type { FolderCaptionSource } from "./training/data/image-folder.js";
export type { ImagePlacement } from "./training/data/image-placement.js";
export type { EvaluationOptions, NoisePredictionError } from "./training/evaluation.js";
export type { FineTunePhase } from "./training/fine-tune.js";
export type { DeviceStepOptions, DeviceSteps, DiffusionBatch, StepOutcome, Trainable } from "./training/trainable.js";
