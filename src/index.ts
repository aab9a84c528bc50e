// The package in Node: everything in web.ts, and what needs files.

import "./storage/node.js";
import "./runtime/node.js";

export {
  encodeDataset,
  type FineTuneOptions,
  type FineTuneResult,
  fineTune,
  noisePredictionError,
  trainingScheduler,
} from "./demo/index.js";
export { encodePng, readImage, writePng } from "./images/image-file.js";
export * from "./library.js";
export { type DownloadProgress, fetchModel, HubError, type HubOptions } from "./storage/hub/index.js";
export { readSafetensors, readTorch, writeSafetensors, writeTorch } from "./storage/index.js";
export { type ImageDataset, openDataset, Trainer, type TrainerOptions } from "./training/index.js";
