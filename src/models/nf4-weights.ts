// A weight in 4 bits: blocks of 64 values, each as one of 16 levels of the block's largest magnitude (NormalFloat, of QLoRA).

import { NF4_BLOCK, NF4_LEVELS } from "../graph/index.js";
import { sizeOf } from "../tensor/tensor.js";
import type { FewBits } from "./few-bits.js";

const ABSMAX = ".absmax";

/** Values halfway between two levels: what lies above is nearer to the next one. */
const BOUNDS = NF4_LEVELS.slice(1).map((level, i) => (level + NF4_LEVELS[i]!) / 2);

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

/** Weights in 4 bits. */
export const nf4: FewBits = {
  detail: "",
  // Divided into whole blocks.
  fits: (shape) => sizeOf(shape) % NF4_BLOCK === 0,
  tensors: (name, shape) => [
    { name, dtype: "U8", shape: [sizeOf(shape) / 2] },
    { name: name + ABSMAX, dtype: "F32", shape: [sizeOf(shape) / NF4_BLOCK] },
  ],
  bytes(_name, values) {
    const { codes, absmax } = toNf4(values);
    return [codes, new Uint8Array(absmax.buffer)];
  },
  stored: (name, _first, rangeOf) => ({ type: "nf4", absmax: rangeOf(name + ABSMAX) }),
};
