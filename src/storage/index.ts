export { readJson, readJsonObject } from "./file-access.js";
export {
  decodeSafetensors,
  encodeSafetensors,
  type NamedTensors,
  type OpenedSafetensors,
  parseSafetensorsHeader,
  type Safetensors,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from "./safetensors.js";
export { openSafetensors, readSafetensors, readTorch, writeSafetensors, writeTorch } from "./tensor-file.js";
export { decodeTorch, encodeTorch } from "./torch.js";
