// A weight as matrices of 8-bit integers, for products that are made of integers: which weights become such, the numbers, and
// where they lie in a file.

import type { FileRange, Int8Matrices } from "../graph/index.js";
import type { SafetensorsEntry } from "../storage/safetensors.js";

/** Fewer rows or columns are not worth a product of integers, and are those of a network's first and last layers. */
const FEWEST = 32;
/** What tells a network its noise level, as diffusers' files and single files name it: one row, on which all depends. */
const CONDITIONING = /(^|\.)(time_|add_|class_|label_)?(embedding|emb|embed|emb_layers|emb_proj)\.|time_emb_proj/;
/**
 * Into and out of a block's transformers, and past its convolutions: their errors add to the residual path. At Stable
 * Diffusion 1.5's size they made most of all layers' error together, and integers saved least there.
 */
const RESIDUAL = /\.(proj_in|proj_out|conv_shortcut|skip_connection)\./;
/** GEGLU makes its halves as two products. */
const HALVED = /\.ff\.net\.0\.proj\.weight$/;

/** The parts of a weight in a file, beside the forward matrix under its own name. */
const PARTS = { scale: ".scale", gradient: ".gradient", gradientScale: ".gradient_scale" } as const;
/** In front of the shape, in the metadata of a file: the matrices' shapes do not tell it. */
const SHAPE_KEY = "shape ";

/** Whether a weight is one of those that are kept in few bits. */
export function isLarge(name: string, shape: readonly number[]): boolean {
  const [out = 0, channels = 0] = shape;
  if (!name.endsWith(".weight") || CONDITIONING.test(name) || RESIDUAL.test(name)) return false;
  return (shape.length === 2 || shape.length === 4) && out >= FEWEST && channels >= FEWEST;
}

/** A weight's matrices with their scales: see {@link Int8Matrices}. */
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

/** What a weight is in a file: names, types, shapes, in the order of {@link int8Bytes}. */
export function int8Tensors(name: string, shape: readonly number[]) {
  const [out, channels, height = 1, width = 1] = shape as [number, number, number?, number?];
  const taps = height * width;
  return [
    { name, dtype: "I8", shape: [blocksOf(name), taps * channels, out / blocksOf(name)] },
    { name: name + PARTS.scale, dtype: "F32", shape: [out] },
    { name: name + PARTS.gradient, dtype: "I8", shape: [taps * out, channels] },
    { name: name + PARTS.gradientScale, dtype: "F32", shape: [channels] },
  ] as const;
}

/** The bytes of {@link int8Tensors}. */
export function int8Bytes(name: string, values: Float32Array, shape: readonly number[], largest: number): Uint8Array[] {
  const { forward, scale, gradient, gradientScale } = toInt8(values, shape, blocksOf(name), largest);
  return [forward, scale, gradient, gradientScale].map(({ buffer }) => new Uint8Array(buffer));
}

const blocksOf = (name: string): number => (HALVED.test(name) ? 2 : 1);

/** What a file's metadata says of weights that it holds as integers. */
export const int8Metadata = (weights: Iterable<readonly [name: string, shape: readonly number[]]>) =>
  Object.fromEntries([...weights].map(([name, shape]) => [SHAPE_KEY + name, JSON.stringify(shape)]));

/** The weights of a file of integers, by name. */
export function* int8Weights(
  path: string,
  entries: ReadonlyMap<string, SafetensorsEntry>,
  metadata: Readonly<Record<string, string>>,
): Generator<readonly [name: string, shape: readonly number[], range: FileRange]> {
  const rangeOf = (name: string): FileRange => {
    const { offset, length } = entries.get(name)!;
    return { path, offset, length };
  };
  for (const [key, text] of Object.entries(metadata)) {
    if (!key.startsWith(SHAPE_KEY)) continue;
    const name = key.slice(SHAPE_KEY.length);
    const stored: Int8Matrices = {
      type: "int8",
      blocks: entries.get(name)!.shape[0]!,
      scale: rangeOf(name + PARTS.scale),
      gradient: rangeOf(name + PARTS.gradient),
      gradientScale: rangeOf(name + PARTS.gradientScale),
    };
    yield [name, JSON.parse(text) as number[], { ...rangeOf(name), stored }];
  }
}
