// Making images in Node, without training: the package's entry `fera/inference`.

import "./storage/node.js";
import "./runtime/node.js";

// Images in files

export { encodeImage, encodePng, type ReadImageOptions, readImage, writeImage, writePng } from "./images/image-file.js";
export * from "./inference.js";

// Tensor files, and the hub's cache

export { fetchModel, HubError, type Wanted } from "./storage/hub/index.js";
export { readSafetensors, readTorch, writeSafetensors, writeTorch } from "./storage/index.js";
