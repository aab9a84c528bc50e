// A file of tensors in either format, by its content: names, shapes and metadata, and single tensors when asked for.

import { FormatError } from "../errors.js";
import { withFile } from "../storage/file-access.js";
import { FILE_KIND_BYTES, kindOfFile, startsWith } from "../storage/file-descriptions.js";
import { decodeTorch, openSafetensors, type SafetensorsEntry } from "../storage/index.js";
import { decodeSafetensorsEntry } from "../storage/safetensors.js";
import type { DType, Tensor } from "../tensor/tensor.js";
import { toBytes } from "../tensor/tensor.js";

/** What a file of tensors holds. */
export interface TensorFile {
  path: string;
  format: "safetensors" | "PyTorch state dict";
  metadata: Record<string, string>;
  entries: ReadonlyMap<string, Pick<SafetensorsEntry, "dtype" | "shape" | "length">>;
  /** @param name - One of `entries`. @throws {FormatError} If the file cannot be read any more. */
  read(name: string): Promise<Tensor>;
}

const DTYPE_NAMES = {
  float32: "F32",
  float16: "F16",
  int64: "I64",
  int32: "I32",
  bool: "BOOL",
} as const satisfies Record<DType, string>;

/**
 * Opens a file. Of safetensors only the header is read; a PyTorch file is read whole, and nothing in it is executed.
 *
 * @throws {FormatError} If it is damaged, or neither; what it seems to be is named.
 */
export async function openTensorFile(path: string): Promise<TensorFile> {
  const start = await withFile(path, (file) => file.read(0, Math.min(file.sizeBytes, FILE_KIND_BYTES)));
  const isZip = startsWith(start, [0x50, 0x4b, 3, 4]);
  if (isZip || /\.(pt|pth)$/i.test(path)) {
    const tensors = await withFile(path, async (file) => decodeTorch(await file.read(0, file.sizeBytes), path));
    const entries = new Map(
      [...tensors].map(([name, value]) => {
        const length = toBytes(value).length;
        return [name, { dtype: DTYPE_NAMES[value.dtype], shape: [...value.shape], length }];
      }),
    );
    return { path, format: "PyTorch state dict", metadata: {}, entries, read: async (name) => tensors.get(name)! };
  }
  // The header of a safetensors file begins with "{" behind its length.
  if (!/\.safetensors$/i.test(path) && start[8] !== 0x7b) throw new FormatError(path, describeUnknown(path, start));
  const { metadata, entries } = await openSafetensors(path);
  const read = (name: string) =>
    withFile(path, async (file) => {
      const entry = entries.get(name)!;
      return decodeSafetensorsEntry(name, entry, await file.read(entry.offset, entry.length), path);
    });
  return { path, format: "safetensors", metadata, entries, read };
}

const READ = "fera reads safetensors files, PyTorch state dicts (.pt), and folders in diffusers' or PEFT's layout.";

function describeUnknown(path: string, start: Uint8Array): string {
  if (start.length === 0) return "is an empty file.";
  const known = kindOfFile(start);
  if (known) return `is ${known}. ${READ}`;
  if (start[0] === 0x80 && start[1]! >= 2 && start[1]! <= 5) {
    return `is a bare Python pickle, which could execute anything and is not read. ${READ}`;
  }
  if (/\.onnx$/i.test(path)) return `is an ONNX graph. ${READ}`;
  if (start[0] === 0x7b || start[0] === 0x5b) return "seems to be JSON. Name the folder that it belongs to.";
  const isText = start.every((byte) => byte === 9 || byte === 10 || byte === 13 || (byte >= 32 && byte < 127));
  return `is ${isText ? "a text" : "of a kind that is not known here"}. ${READ}`;
}
