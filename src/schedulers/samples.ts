// Elementwise arithmetic on float32 samples, and the checks of its inputs.

import { ConfigError, ShapeError } from "../errors.js";
import { sizeOf, Tensor } from "../tensor/tensor.js";
import type { StepOptions } from "./scheduler.js";

/**
 * The float32 data of a tensor.
 *
 * @throws {ShapeError} If it is no float32 tensor.
 */
export function float32(where: string, name: string, value: Tensor): Float32Array {
  if (!(value instanceof Tensor) || value.dtype !== "float32") {
    throw new ShapeError(
      `${where}: ${name} must be a float32 tensor; got ${value instanceof Tensor ? value.dtype : typeof value}.`,
    );
  }
  return value.data as Float32Array;
}

/**
 * Two tensors' float32 data.
 *
 * @throws {ShapeError} If either is not float32 or their shapes differ.
 */
export function float32Pair(
  where: string,
  names: [string, string],
  a: Tensor,
  b: Tensor,
): [Float32Array, Float32Array] {
  const pair: [Float32Array, Float32Array] = [float32(where, names[0], a), float32(where, names[1], b)];
  if (a.shape.length !== b.shape.length || a.shape.some((size, axis) => size !== b.shape[axis])) {
    throw new ShapeError(
      `${where}: ${names[0]} and ${names[1]} must have the same shape; got [${a.shape.join(",")}] and [${b.shape.join(",")}].`,
    );
  }
  return pair;
}

/**
 * a·x + b·y, elementwise.
 *
 * A term whose factor is 0 is left out, so that it cannot spread an infinity as NaN.
 */
export function combine(a: number, x: Float32Array, b: number, y: Float32Array): Float32Array<ArrayBuffer> {
  const result = new Float32Array(x.length);
  if (b === 0) for (let i = 0; i < result.length; i++) result[i] = a * x[i]!;
  else if (a === 0) for (let i = 0; i < result.length; i++) result[i] = b * y[i]!;
  else for (let i = 0; i < result.length; i++) result[i] = a * x[i]! + b * y[i]!;
  return result;
}

/** Clamps every element to [−range, range], in place. */
export function clampInPlace(values: Float32Array, range: number): void {
  for (let i = 0; i < values.length; i++) values[i] = Math.min(Math.max(values[i]!, -range), range);
}

/**
 * a(t)·x + b(t)·y with one pair of factors per sample of the batch.
 *
 * @param timesteps - int64, int32 or float32 with one element per sample, or one for all.
 * @param factors - The two factors at a timestep.
 * @throws {ShapeError} If shapes or dtypes do not fit.
 */
export function combinePerSample(
  where: string,
  names: [string, string],
  [x, y]: [Tensor, Tensor],
  timesteps: Tensor,
  factors: (t: number) => [number, number],
): Tensor<"float32"> {
  const [left, right] = float32Pair(where, names, x, y);
  const times = timestepValues(where, timesteps);
  const batch = x.shape[0] ?? 1;
  if (times.length !== 1 && times.length !== batch) {
    throw new ShapeError(
      `${where}: timesteps must have one element or one per sample; got ${times.length} for a batch of ${batch}.`,
    );
  }
  const stride = sizeOf(x.shape.slice(1));
  const result = new Float32Array(left.length);
  for (let sample = 0; sample < batch; sample++) {
    const [a, b] = factors(times[times.length === 1 ? 0 : sample]!);
    for (let i = sample * stride; i < (sample + 1) * stride; i++) result[i] = a * left[i]! + b * right[i]!;
  }
  return new Tensor("float32", x.shape, result);
}

/**
 * A timestep as an index into the noise schedule.
 *
 * @throws {ConfigError} Unless it is an integer in [0, T).
 */
export function timestepIndex(where: string, t: number, trainTimesteps: number): number {
  if (!Number.isSafeInteger(t) || t < 0 || t >= trainTimesteps) {
    throw new ConfigError(`${where}: timesteps must be integers from 0 to ${trainTimesteps - 1}; got ${t}.`);
  }
  return t;
}

/**
 * The noise that a stochastic step was given.
 *
 * @throws {ConfigError} If there is none.
 * @throws {ShapeError} If it does not have the sample's shape.
 */
export function stepNoise(where: string, noise: StepOptions["noise"], sample: Tensor): Float32Array {
  if (noise === undefined) {
    throw new ConfigError(`${where}: this step adds noise; pass options.noise, a tensor or a function that draws one.`);
  }
  const drawn = typeof noise === "function" ? noise(sample.shape) : noise;
  return float32Pair(where, ["sample", "noise"], sample, drawn)[1];
}

function timestepValues(where: string, timesteps: Tensor): number[] {
  const dtype = timesteps instanceof Tensor ? timesteps.dtype : typeof timesteps;
  if (dtype !== "int64" && dtype !== "int32" && dtype !== "float32") {
    throw new ShapeError(`${where}: timesteps must be an int64, int32 or float32 tensor; got ${dtype}.`);
  }
  return Array.from(timesteps.data as ArrayLike<number | bigint>, Number);
}
