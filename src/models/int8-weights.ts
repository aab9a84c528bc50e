// A weight as matrices of 8-bit integers, for products that are made of integers: the numbers, and their parts in a file.

import type { FewBits } from "./few-bits.js";

/** A gated feed-forward makes its halves as two products. */
const HALVED = /\.(ff\.net\.0\.proj|linear_in)\.weight$/;
/** Queries, keys, values and the halves of a feed-forward. */
const WHOLE = /\.to_qkv_mlp_proj\.weight$/;

/** The parts of a weight in a file, beside the forward matrix under its own name. */
const PARTS = { scale: ".scale", gradient: ".gradient", gradientScale: ".gradient_scale" } as const;

/** A weight's matrices with their scales: see `Int8Matrices`. */
export interface Int8Weight {
  blocks: number;
  forward: Int8Array<ArrayBuffer>;
  scale: Float32Array<ArrayBuffer>;
  gradient: Int8Array<ArrayBuffer>;
  gradientScale: Float32Array<ArrayBuffer>;
}

/**
 * Rounds a weight to the nearest integers, per output channel for the forward product and per input channel for the gradient.
 *
 * @param largest - The largest magnitude of an integer.
 */
export function toInt8(values: Float32Array, shape: readonly number[], blocks: number, largest: number): Int8Weight {
  const [out, channels, height = 1, width = 1] = shape as [number, number, number?, number?];
  const taps = height * width;
  const scale = new Float32Array(out);
  const gradientScale = new Float32Array(channels);
  for (let o = 0, i = 0; o < out; o++) {
    for (let c = 0; c < channels; c++) {
      for (let tap = 0; tap < taps; tap++, i++) {
        const magnitude = Math.abs(values[i]!);
        if (magnitude > scale[o]!) scale[o] = magnitude;
        if (magnitude > gradientScale[c]!) gradientScale[c] = magnitude;
      }
    }
  }
  for (const scales of [scale, gradientScale]) {
    for (let i = 0; i < scales.length; i++) scales[i] = scales[i]! / largest || 1;
  }
  const forward = new Int8Array(values.length);
  const gradient = new Int8Array(values.length);
  const blockOut = out / blocks;
  for (let o = 0, i = 0; o < out; o++) {
    const block = Math.floor(o / blockOut);
    const start = block * blockOut * taps * channels + (o - block * blockOut);
    for (let c = 0; c < channels; c++) {
      for (let tap = 0; tap < taps; tap++, i++) {
        forward[start + (tap * channels + c) * blockOut] = Math.round(values[i]! / scale[o]!);
        gradient[((taps - 1 - tap) * out + o) * channels + c] = Math.round(values[i]! / gradientScale[c]!);
      }
    }
  }
  return { blocks, forward, scale, gradient, gradientScale };
}

/** Into how many blocks of rows a weight is divided, so that products with parts of it take whole blocks. */
function blocksOf(name: string, [out, channels]: readonly number[]): number {
  if (WHOLE.test(name)) {
    const hidden = (out! - 3 * channels!) / 2;
    return out! / greatestCommonDivisor(channels!, hidden);
  }
  // Feed-forwards that are not gated have that name, too; these are four times as wide.
  return HALVED.test(name) && out !== 4 * channels! ? 2 : 1;
}

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b));

/** Weights as integers. @param largest - The largest magnitude of an integer. */
export const int8 = (largest: number): FewBits => ({
  detail: ` to ${largest}`,
  fits: () => true,
  tensors(name, shape) {
    const [out, channels, height = 1, width = 1] = shape as [number, number, number?, number?];
    const taps = height * width;
    const blocks = blocksOf(name, shape);
    return [
      { name, dtype: "I8", shape: [blocks, taps * channels, out / blocks] },
      { name: name + PARTS.scale, dtype: "F32", shape: [out] },
      { name: name + PARTS.gradient, dtype: "I8", shape: [taps * out, channels] },
      { name: name + PARTS.gradientScale, dtype: "F32", shape: [channels] },
    ];
  },
  bytes(name, values, shape) {
    const { forward, scale, gradient, gradientScale } = toInt8(values, shape, blocksOf(name, shape), largest);
    return [forward, scale, gradient, gradientScale].map(({ buffer }) => new Uint8Array(buffer));
  },
  stored: (name, { shape }, rangeOf) => ({
    type: "int8",
    blocks: shape[0]!,
    scale: rangeOf(name + PARTS.scale),
    gradient: rangeOf(name + PARTS.gradient),
    gradientScale: rangeOf(name + PARTS.gradientScale),
  }),
});
