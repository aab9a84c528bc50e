// Classifier-free guidance: one prediction from one that saw the prompt and one that did not.

import { ShapeError } from "../errors.js";
import { Tensor, tensor } from "../tensor/tensor.js";

/** How far guidance goes. */
export interface Guidance {
  /** 1 is the conditional prediction; more goes further away from the unconditional one. */
  scale: number;
  /** 0 … 1: how much of the conditional prediction's spread is given back. */
  rescale: number;
}

/**
 * g = u + scale · (c − u), then g · (rescale · std(c) / std(g) + 1 − rescale).
 *
 * std is over all values of one sample, with n − 1 in the denominator.
 *
 * @param output - Float32 `[2N, …]`: N unconditional predictions u, then N conditional ones c.
 * @returns `[N, …]`.
 * @throws {ShapeError} If the rows cannot be halved.
 * @see Ho & Salimans 2022, arXiv:2207.12598; Lin et al. 2023, arXiv:2305.08891, section 3.4
 */
export function guided(output: Tensor<"float32">, { scale, rescale }: Guidance): Tensor<"float32"> {
  const rows = output.shape[0] ?? 0;
  if (rows % 2 !== 0) throw new ShapeError(`guided: the output must have an even number of rows; got ${rows}.`);
  const half = output.size / 2;
  const { data } = output;
  const result = new Float32Array(half);
  for (let i = 0; i < half; i++) result[i] = data[i]! + scale * (data[half + i]! - data[i]!);
  if (rescale > 0) {
    const size = half / (rows / 2);
    for (let start = 0; start < half; start += size) {
      const sample = result.subarray(start, start + size);
      const conditional = data.subarray(half + start, half + start + size);
      const factor = (rescale * standardDeviation(conditional)) / standardDeviation(sample) + 1 - rescale;
      for (let i = 0; i < size; i++) sample[i] = sample[i]! * factor;
    }
  }
  return new Tensor("float32", [rows / 2, ...output.shape.slice(1)], result);
}

/**
 * How a model that was distilled with guidance is told the scale: [sin(1000 w ω), cos(1000 w ω)], w = scale − 1,
 * ω_i = 10000^(−i / (⌊features/2⌋ − 1)); a last 0 where features is odd.
 *
 * @returns `[rows, features]`, all rows alike.
 * @see Luo et al. 2023, arXiv:2310.04378; diffusers' get_guidance_scale_embedding
 */
export function guidanceScaleEmbedding(scale: number, features: number, rows: number): Tensor<"float32"> {
  const half = Math.floor(features / 2);
  const row = new Float32Array(features);
  const fround = Math.fround;
  // In float32 throughout, as torch computes it: the sine of an angle of thousands feels the rounding of the angle.
  const w = fround(fround(scale - 1) * 1000);
  const step = fround(fround(Math.log(10000)) / (half - 1));
  for (let i = 0; i < half; i++) {
    const angle = fround(w * fround(Math.exp(fround(i * -step))));
    row[i] = Math.sin(angle);
    row[half + i] = Math.cos(angle);
  }
  const data = new Float32Array(rows * features);
  for (let start = 0; start < data.length; start += features) data.set(row, start);
  return tensor(data, [rows, features]);
}

function standardDeviation(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return Math.sqrt(squares / (values.length - 1));
}
