// The norm of all gradients, and their clipping to it: in main memory, and in a graph.

import { ConfigError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { PACKED_ROW } from "../packing.js";

/** Keeps the factor of a norm of 0 finite, as in `torch.nn.utils.clip_grad_norm_`. */
const EPSILON = 1e-6;

/**
 * The norm of all gradients taken together, sqrt(Σ g²), accumulated in float64.
 *
 * @returns 0 without gradients; NaN or Infinity if any element is such.
 */
export function gradientNorm(gradients: ReadonlyMap<string, Float32Array>): number {
  let total = 0;
  for (const gradient of gradients.values()) total += sumOfSquares(gradient);
  return Math.sqrt(total);
}

/**
 * Scales gradients in place so that their common norm is at most `maxNorm`: by maxNorm/(norm + 1e-6) where that is
 * below 1, as `torch.nn.utils.clip_grad_norm_` does.
 *
 * Gradients whose norm is not finite are left as they are; check the returned norm.
 *
 * @param maxNorm - Above 0; Infinity clips nothing.
 * @returns The norm before clipping.
 * @throws {ConfigError} If `maxNorm` is not above 0.
 */
export function clipGradients(gradients: ReadonlyMap<string, Float32Array>, maxNorm: number): number {
  if (!(maxNorm > 0)) throw new ConfigError(`clipGradients: maxNorm must be above 0; got ${maxNorm}.`);
  const norm = gradientNorm(gradients);
  const factor = clippingFactor(norm, maxNorm);
  if (factor < 1) {
    for (const gradient of gradients.values()) {
      for (let i = 0; i < gradient.length; i++) gradient[i]! *= factor;
    }
  }
  return norm;
}

/** What {@link clipGradients} multiplies gradients of a norm by; 1 where they stay as they are. */
export function clippingFactor(norm: number, maxNorm: number): number {
  const factor = maxNorm / (norm + EPSILON);
  return factor < 1 && Number.isFinite(norm) ? factor : 1;
}

/** Stands for "no clipping" in a graph: infinities in shaders are not reliable. */
const UNLIMITED = 3e38;

/** The number to feed to a graph with {@link addGradientClipping}. */
export const fedMaxNorm = (maxNorm = Number.POSITIVE_INFINITY): number => Math.min(maxNorm, UNLIMITED);

/**
 * {@link clipGradients} as graph nodes: g · min(1, maxNorm/(‖g‖ + 1e-6)).
 *
 * @param gradient - `[P]`, P a multiple of {@link PACKED_ROW}.
 * @param maxNorm - `[1]`, as {@link fedMaxNorm} gives it.
 * @returns The clipped gradient `[P]`, and ‖g‖ before clipping (a scalar), which is not finite where an element of g is
 *   not, and where Σ g² leaves float32's range.
 */
export function addGradientClipping(gradient: Value, maxNorm: Value): { gradient: Value; norm: Value } {
  const rows = ops.reshape(ops.mul(gradient, gradient), [gradient.size / PACKED_ROW, PACKED_ROW]);
  // Row by row: many partial sums run beside each other on a GPU, and round less than one long sum.
  const norm = ops.sqrt(ops.reduceSum(ops.reduceSum(rows, [1])));
  const ratio = ops.div(maxNorm, ops.add(norm, EPSILON));
  const one = gradient.graph.scalar(1);
  return { gradient: ops.mul(gradient, ops.where(ops.greater(one, ratio), ratio, one)), norm };
}

/** Σ x², in four partial sums: a single one would wait for each addition before the next. */
function sumOfSquares(values: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const even = values.length - (values.length % 4);
  for (let i = 0; i < even; i += 4) {
    a += values[i]! * values[i]!;
    b += values[i + 1]! * values[i + 1]!;
    c += values[i + 2]! * values[i + 2]!;
    d += values[i + 3]! * values[i + 3]!;
  }
  for (let i = even; i < values.length; i++) a += values[i]! * values[i]!;
  return a + b + c + d;
}
