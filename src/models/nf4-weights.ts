// A weight in 4 bits: blocks of 64 values, each as one of 16 levels of the block's largest magnitude (NormalFloat, of QLoRA).

import { NF4_BLOCK, NF4_LEVELS } from "../graph/index.js";
import { sizeOf } from "../tensor/tensor.js";
import type { FewBits } from "./few-bits.js";

const ABSMAX = ".absmax";

/** Values halfway between two levels: what lies above is nearer to the next one. */
const BOUNDS = NF4_LEVELS.slice(1).map((level, i) => (level + NF4_LEVELS[i]!) / 2);
/** −1 … 1 in so many parts that none has two bounds in it: a weight's code then takes one comparison, not fifteen. */
const PARTS = 128;
const PER_UNIT = PARTS / 2;
/** Codes of the parts' lower ends; 1 is the lower end of the last. */
const PART_CODES = Uint8Array.from({ length: PARTS + 1 }, (_, part) => countBelow(part / PER_UNIT - 1));
/** The bound behind that code: the one within the part, or one above it. */
const PART_BOUNDS = Float64Array.from(PART_CODES, (code) => BOUNDS[code] ?? Number.POSITIVE_INFINITY);

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

/** @param value - −1 … 1, but for rounding. */
function nearest(value: number): number {
  const part = Math.min(Math.max(Math.floor((value + 1) * PER_UNIT), 0), PARTS);
  return PART_CODES[part]! + (value > PART_BOUNDS[part]! ? 1 : 0);
}

function countBelow(value: number): number {
  return BOUNDS.filter((bound) => value > bound).length;
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
