// The package in Node: everything in web.ts, and what needs files.

import "./fera/adapter-files-node.js";
import "./models/pretrained-node.js";
import "./pipelines/pipeline-node.js";
import "./runtime/node.js";

export {
  encodeDataset,
  type FineTuneOptions,
  type FineTuneResult,
  fineTune,
  noisePredictionError,
  trainingScheduler,
} from "./fine-tuning/index.js";
export { readSafetensors, readTorch, writeSafetensors, writeTorch } from "./formats/index.js";
export { type DownloadProgress, fetchModel, HubError, type HubOptions } from "./hub/index.js";
export { encodePng, readImage, writePng } from "./images/png.js";
export * from "./library.js";
export { type ImageDataset, openDataset, Trainer, type TrainerOptions } from "./training/index.js";
