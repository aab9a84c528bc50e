// The weights of a safetensors file as a stream of float32 bytes. Node only.

import { toBytes } from "../tensor/tensor.js";
import { withFile } from "./file-access.js";
import { asFloat32 } from "./float32.js";
import { decodeSafetensorsEntry, type SafetensorsEntry } from "./safetensors.js";

/** Elements converted at a time: little memory, and few enough steps. */
const CHUNK_ELEMENTS = 2 ** 22;

/**
 * The values of tensors in a safetensors file as float32 bytes, one tensor after the other.
 *
 * @param entries - With offsets in the file; each of a floating-point type.
 * @throws {FormatError} If the file cannot be read.
 */
export async function* float32Chunks(
  path: string,
  entries: Iterable<readonly [name: string, entry: SafetensorsEntry]>,
): AsyncGenerator<Uint8Array> {
  const jobs = [...entries];
  const read = (offset: number, length: number) => withFile(path, (file) => file.read(offset, length));
  for (const [name, { dtype, length, shape, offset }] of jobs) {
    const elements = shape.reduce((product, dimension) => product * dimension, 1);
    const width = length / Math.max(elements, 1);
    for (let from = 0; from < elements; from += CHUNK_ELEMENTS) {
      const count = Math.min(CHUNK_ELEMENTS, elements - from);
      const bytes = await read(offset + from * width, count * width);
      const entry = { dtype, shape: [count], offset: 0, length: bytes.length };
      yield toBytes(asFloat32(decodeSafetensorsEntry(name, entry, bytes, path))!);
    }
  }
}
