export {
  type ModelFolder,
  type ModelFolderOptions,
  readJson,
  readJsonObject,
  readModelFolder,
} from "./diffusers-folder.js";
export {
  decodeSafetensors,
  encodeSafetensors,
  type NamedTensors,
  parseSafetensorsHeader,
  type Safetensors,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from "./safetensors.js";
export { type OpenedSafetensors, openSafetensors, readSafetensors, writeSafetensors } from "./safetensors-file.js";
export { decodeTorch, encodeTorch } from "./torch.js";
export { readTorch, writeTorch } from "./torch-file.js";
