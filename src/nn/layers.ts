// Layers with parameters, named and initialized as torch's. Each takes the scope of its own module.

import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { fail } from "../graph/shapes.js";
import { sizeOf, tensor } from "../tensor/tensor.js";
import type { Initializer, Scope } from "./scope.js";

/** torch's default for linear and convolution layers: uniform in ±1/√fan_in. */
const fanIn = (count: number): Initializer => ({ kind: "uniform", bound: 1 / Math.sqrt(count) });
const ones: Initializer = { kind: "constant", value: 1 };
const zeros: Initializer = { kind: "constant", value: 0 };

/**
 * y = x Wᵀ + b, adapted where the adapters name this path.
 *
 * @param x - `[..., in]`.
 * @returns `[..., outFeatures]`.
 */
export function linear(scope: Scope, x: Value, outFeatures: number, options: { bias?: boolean } = {}): Value {
  requireRank(scope, "linear", x, 1, "[..., in]");
  const inFeatures = x.shape.at(-1)!;
  const weight = scope.parameter("weight", [outFeatures, inFeatures], fanIn(inFeatures));
  const bias = options.bias === false ? undefined : scope.parameter("bias", [outFeatures], fanIn(inFeatures));
  return scope.build(() => scope.adapt({ kind: "linear", weight, bias }, x, ops.linear(x, weight, bias)));
}

/** Options of {@link conv2d}. */
export interface Conv2dOptions extends ops.ConvolutionOptions {
  bias?: boolean;
}

/**
 * 2-D convolution with a square kernel, adapted where the adapters name this path; a 1×1 kernel is computed as a matrix
 * product.
 *
 * @param x - `[B, C, H, W]`.
 * @returns `[B, outChannels, H', W']`.
 */
export function conv2d(
  scope: Scope,
  x: Value,
  outChannels: number,
  kernel: number,
  options: Conv2dOptions = {},
): Value {
  if (x.rank !== 4) scope.build(() => fail("conv2d", "x must be [B, C, H, W]", { x }));
  const channels = x.shape[1]!;
  const initializer = fanIn(channels * kernel * kernel);
  const weight = scope.parameter("weight", [outChannels, channels, kernel, kernel], initializer);
  const bias = options.bias === false ? undefined : scope.parameter("bias", [outChannels], initializer);
  const { stride = 1, padding = 0 } = options;
  const layer = { kind: "convolution", weight, bias, stride, padding } as const;
  const isProduct = kernel === 1 && stride === 1 && padding === 0;
  return scope.build(() =>
    scope.adapt(layer, x, isProduct ? pointwise(x, weight, bias) : ops.conv(x, weight, bias, options)),
  );
}

/** A 1×1 convolution as the product of the weight with the pixels of each sample. */
function pointwise(x: Value, weight: Value, bias: Value | undefined): Value {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const outChannels = weight.shape[0]!;
  const matrix = ops.reshape(weight, [outChannels, channels]);
  const product = ops.matMul(matrix, ops.reshape(x, [batch, channels, height * width]));
  const y = bias ? ops.add(product, ops.reshape(bias, [outChannels, 1])) : product;
  return ops.reshape(y, [batch, outChannels, height, width]);
}

/** Group normalization over the channels of `[B, C, ...]`. */
export function groupNorm(scope: Scope, x: Value, groups: number, epsilon: number): Value {
  requireRank(scope, "groupNorm", x, 3, "[B, C, ...]");
  const channels = x.shape[1]!;
  const weight = scope.parameter("weight", [channels], ones);
  const bias = scope.parameter("bias", [channels], zeros);
  return scope.build(() => ops.groupNorm(x, weight, bias, groups, epsilon).y);
}

/** Layer normalization over the last axis. */
export function layerNorm(scope: Scope, x: Value, epsilon = 1e-5): Value {
  requireRank(scope, "layerNorm", x, 1, "[..., features]");
  const features = x.shape.at(-1)!;
  const weight = scope.parameter("weight", [features], ones);
  const bias = scope.parameter("bias", [features], zeros);
  return scope.build(() => ops.layerNorm(x, weight, bias, epsilon).y);
}

/** Divides the last axis by its root mean square and scales it. */
export function rmsNorm(scope: Scope, x: Value, epsilon: number): Value {
  requireRank(scope, "rmsNorm", x, 1, "[..., features]");
  const weight = scope.parameter("weight", [x.shape.at(-1)!], ones);
  return scope.build(() => ops.rmsNorm(x, weight, epsilon));
}

/**
 * Rows of a learned table.
 *
 * @param indices - int64 or int32 of any shape, in 0 … rows−1.
 * @param std - Standard deviation that a fresh table is drawn with.
 * @returns `[...indices.shape, features]`.
 */
export function embedding(scope: Scope, indices: Value, rows: number, features: number, std = 1): Value {
  const table = scope.parameter("weight", [rows, features], { kind: "normal", std });
  return scope.build(() => ops.gather(table, indices));
}

/** Before the parameters are looked for, whose shapes follow from x. */
function requireRank(scope: Scope, where: string, x: Value, least: number, form: string): void {
  if (x.rank < least) scope.build(() => fail(where, `x must be ${form}`, { x }));
}

/**
 * Sinusoidal embedding of scalars: `[cos(t ω), sin(t ω)]` or the reverse, ω_i = 10000^(−i / (features/2 − shift)).
 *
 * @param values - float32, any shape: timesteps, or SDXL's sizes.
 * @returns `[values.size, features]`.
 * @see Ho et al. 2020, arXiv:2006.11239
 */
export function sinusoidalEmbedding(
  values: Value,
  features: number,
  options: { flipSinToCos: boolean; frequencyShift: number },
): Value {
  const half = Math.floor(features / 2);
  const frequencies = new Float32Array(half);
  for (let i = 0; i < half; i++) frequencies[i] = Math.exp((-Math.log(10000) * i) / (half - options.frequencyShift));
  const omega = values.graph.constant(tensor(frequencies, [1, half]));
  const angles = ops.mul(ops.reshape(values, [sizeOf(values.shape), 1]), omega);
  const parts = [ops.sin(angles), ops.cos(angles)];
  const both = ops.concat(options.flipSinToCos ? parts.reverse() : parts, -1);
  return features % 2 === 1 ? ops.pad(both, -1, 0, 1) : both;
}
