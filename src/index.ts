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
