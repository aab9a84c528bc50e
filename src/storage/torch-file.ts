// torch.save files on disk. Node only; the format itself is in torch.ts.

import type { Tensor } from "../tensor/tensor.js";
import { readWholeFile, writeFileAtomically } from "./file-access.js";
import type { NamedTensors } from "./safetensors.js";
import { decodeTorch, encodeTorch } from "./torch.js";

/**
 * Reads a state dict that torch.save wrote, executing nothing.
 *
 * @param file - A path, or the file's bytes.
 * @throws {FormatError} If the file is missing, damaged, or more than a dict of tensors.
 */
export async function readTorch(file: string | Uint8Array): Promise<Map<string, Tensor>> {
  if (typeof file !== "string") return decodeTorch(file);
  return decodeTorch(await readWholeFile(file), file);
}

/**
 * Writes tensors as torch.save would an OrderedDict of them, atomically.
 *
 * @throws {FormatError} If it would be 4 GiB or more, or the file cannot be written.
 */
export async function writeTorch(path: string, tensors: NamedTensors): Promise<void> {
  await writeFileAtomically(path, [encodeTorch(tensors, path)]);
}
