// Making images in Node, without training: the package's entry `fera/inference`.

import "./storage/node.js";
import "./runtime/node.js";

export { encodeImage, encodePng, type ReadImageOptions, readImage, writeImage, writePng } from "./images/image-file.js";
export * from "./inference.js";
export { fetchModel, HubError } from "./storage/hub/index.js";
export { readSafetensors, readTorch, writeSafetensors, writeTorch } from "./storage/index.js";
