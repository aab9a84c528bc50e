// Reads models from disk and from the hub: folders in diffusers' layout and single-file checkpoints. float32 weights
// stay in their file; others are converted once.

import { readModelFolder } from "../storage/diffusers-folder.js";
import { locateModel } from "../storage/hub/locate.js";
import "./clip-tokenizer/clip-tokenizer-files.js";
import { type ModelFolder, type ModelFolderRequest, registerModelFolderReader } from "./pretrained.js";
import { pickledWeights, safetensorsWeights } from "./pretrained-weights.js";
import { readSingleFile } from "./single-file/single-file.js";

registerModelFolderReader(async (dir, request) => {
  const { subfolder } = request;
  const place = await locateModel(dir, { ...request, parts: [subfolder ?? ""] });
  if (place.kind === "file") return readSingleFile(place.path, await withLocalConfig(request));
  const folder = await readModelFolder(place.path, request);
  const weights: ModelFolder["weights"] = new Map();
  for (const opened of folder.weights) {
    for (const [name, weight] of await safetensorsWeights(opened, request)) weights.set(name, weight);
  }
  for (const pickled of folder.pickled) {
    for (const [name, weight] of await pickledWeights(pickled, request)) weights.set(name, weight);
  }
  return { source: folder.dir, config: folder.config, weights };
});

/** A configuration that is named by a hub id is fetched. */
async function withLocalConfig(request: ModelFolderRequest): Promise<ModelFolderRequest> {
  if (request.config === undefined) return request;
  const { path } = await locateModel(request.config, { ...request, parts: "all", weights: false });
  return { ...request, config: path };
}
