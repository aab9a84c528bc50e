// A weight in 4 bits: blocks of 64 values, each as one of 16 levels of the block's largest magnitude (NormalFloat, of QLoRA).

import { type FileRange, NF4_BLOCK, NF4_LEVELS } from "../graph/index.js";
import type { SafetensorsEntry } from "../storage/safetensors.js";
import { sizeOf } from "../tensor/tensor.js";

const ABSMAX = ".absmax";
const SHAPE_KEY = "shape ";

/** Values halfway between two levels: what lies above is nearer to the next one. */
const BOUNDS = NF4_LEVELS.slice(1).map((level, i) => (level + NF4_LEVELS[i]!) / 2);

/** Whether a weight can be divided into blocks. */
export const fitsNf4 = (shape: readonly number[]): boolean => sizeOf(shape) % NF4_BLOCK === 0;

/**
 * The nearest levels, two in a byte, the first in its upper half; and the largest magnitude of each block.
 *
 * @see Dettmers et al. 2023, arXiv:2305.14314
 */
export function toNf4(values: Float32Array): { codes: Uint8Array<ArrayBuffer>; absmax: Float32Array<ArrayBuffer> } {
  const absmax = new Float32Array(values.length / NF4_BLOCK);
  const codes = new Uint8Array(values.length / 2);
  for (let block = 0; block < absmax.length; block++) {
    const start = block * NF4_BLOCK;
    let largest = 0;
    for (let i = start; i < start + NF4_BLOCK; i++) largest = Math.max(largest, Math.abs(values[i]!));
    absmax[block] = largest;
    const inverse = largest === 0 ? 0 : 1 / largest;
    for (let i = start; i < start + NF4_BLOCK; i += 2) {
      codes[i / 2] = (nearest(values[i]! * inverse) << 4) | nearest(values[i + 1]! * inverse);
    }
  }
  return { codes, absmax };
}

function nearest(value: number): number {
  let code = 0;
  for (const bound of BOUNDS) if (value > bound) code++;
  return code;
}

/** What a weight is in a file, in the order of {@link nf4Bytes}. */
export function nf4Tensors(name: string, shape: readonly number[]) {
  const size = sizeOf(shape);
  return [
    { name, dtype: "U8", shape: [size / 2] },
    { name: name + ABSMAX, dtype: "F32", shape: [size / NF4_BLOCK] },
  ] as const;
}

/** The bytes of {@link nf4Tensors}. */
export function nf4Bytes(values: Float32Array): Uint8Array[] {
  const { codes, absmax } = toNf4(values);
  return [codes, new Uint8Array(absmax.buffer)];
}

/** What a file's metadata says of weights that it holds in 4 bits. */
export const nf4Metadata = (weights: Iterable<readonly [name: string, shape: readonly number[]]>) =>
  Object.fromEntries([...weights].map(([name, shape]) => [SHAPE_KEY + name, JSON.stringify(shape)]));

/** The weights of such a file, by name. */
export function* nf4Weights(
  path: string,
  entries: ReadonlyMap<string, SafetensorsEntry>,
  metadata: Readonly<Record<string, string>>,
): Iterable<readonly [name: string, shape: readonly number[], range: FileRange]> {
  const rangeOf = (name: string): FileRange => {
    const { offset, length } = entries.get(name)!;
    return { path, offset, length };
  };
  for (const [key, text] of Object.entries(metadata)) {
    if (!key.startsWith(SHAPE_KEY)) continue;
    const name = key.slice(SHAPE_KEY.length);
    yield [
      name,
      JSON.parse(text) as number[],
      { ...rangeOf(name), stored: { type: "nf4", absmax: rangeOf(name + ABSMAX) } },
    ];
  }
}
