// Files of tensors on disk, by path: safetensors and torch.save's. Node only; the formats are in safetensors.ts, torch.ts.

import type { Tensor } from "../tensor/tensor.js";
import { type OpenFile, readWholeFile, withFile, writeFileAtomically } from "./file-access.js";
import { FILE_KIND_BYTES } from "./file-descriptions.js";
import {
  decodeSafetensors,
  decodeSafetensorsEntry,
  type NamedTensors,
  type OpenedSafetensors,
  parseSafetensorsHeader,
  SAFETENSORS_PREFIX_BYTES,
  type Safetensors,
  safetensorsHeaderLength,
  safetensorsParts,
} from "./safetensors.js";
import { decodeTorch, encodeTorch } from "./torch.js";

/**
 * Reads all tensors of a safetensors file.
 *
 * BF16 and F64 become float32; F32, F16, I64, I32 and BOOL keep their type.
 *
 * @param file - A path, or the file's bytes.
 * @throws {FormatError} If the file is missing, breaks the format, or holds another dtype.
 */
export async function readSafetensors(file: string | Uint8Array): Promise<Safetensors> {
  if (typeof file !== "string") return decodeSafetensors(file);
  return withFile(file, async (handle) => {
    const { metadata, entries } = await readHeader(handle, file);
    const tensors = new Map<string, Tensor>();
    for (const [name, entry] of entries) {
      const bytes = await handle.read(entry.offset, entry.length);
      tensors.set(name, decodeSafetensorsEntry(name, entry, bytes, file));
    }
    return { tensors, metadata };
  });
}

/**
 * Reads only the header, for using the file's data in place.
 *
 * @throws {FormatError} If the file is missing or its header breaks the format. Any dtype of the format is accepted.
 */
export function openSafetensors(path: string): Promise<OpenedSafetensors> {
  return withFile(path, async (handle) => ({ source: path, path: handle.path, ...(await readHeader(handle, path)) }));
}

/**
 * Writes tensors as a safetensors file, atomically.
 *
 * @param metadata - Strings for the header's `__metadata__`.
 * @throws {FormatError} If a name or a metadata value is not allowed, or the file cannot be written.
 */
export async function writeSafetensors(
  path: string,
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFileAtomically(path, safetensorsParts(tensors, metadata, path));
}

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

async function readHeader(file: OpenFile, source: string) {
  const prefix = await file.read(0, Math.min(file.sizeBytes, FILE_KIND_BYTES));
  const headerLength = safetensorsHeaderLength(prefix, file.sizeBytes, source);
  const dataStart = SAFETENSORS_PREFIX_BYTES + headerLength;
  const header = await file.read(SAFETENSORS_PREFIX_BYTES, headerLength);
  const { metadata, entries } = parseSafetensorsHeader(header, source, file.sizeBytes - dataStart);
  for (const entry of entries.values()) entry.offset += dataStart;
  return { metadata, entries };
}
