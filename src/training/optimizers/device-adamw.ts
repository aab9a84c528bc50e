// AdamW as part of a graph, with the clipping of gradients, for states that stay on a device. The formula is that of
// `AdamW`, in float32 throughout.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { PACKED_ROW } from "../packing.js";
import type { AdamWCoefficients } from "./adamw.js";

/** Stands for "no clipping": infinities in shaders are not reliable. */
const UNLIMITED = 3e38;
const COEFFICIENTS = ["decay", "beta1", "gain1", "beta2", "gain2", "stepSize", "rootScale", "eps", "maxNorm"] as const;

/** Shape of what {@link adamWCoefficients} gives. */
export const COEFFICIENTS_SHAPE: readonly number[] = [COEFFICIENTS.length];

/** The numbers of one step, to be fed to a graph with {@link addAdamW}. */
export function adamWCoefficients(
  coefficients: AdamWCoefficients,
  maxNorm = Number.POSITIVE_INFINITY,
): Tensor<"float32"> {
  const all = { ...coefficients, maxNorm: Math.min(maxNorm, UNLIMITED) };
  return tensor(
    COEFFICIENTS.map((name) => all[name]),
    COEFFICIENTS_SHAPE,
  );
}

/** A packed state: parameters and both moments, `[P]` each, P a multiple of the packing's row. */
export interface PackedState {
  parameters: Value;
  first: Value;
  second: Value;
}

/**
 * One step of AdamW.
 *
 * g ← g · min(1, maxNorm/(‖g‖ + 1e-6)), then as `AdamW` says. The weight decay is subtracted together with the step: a
 * factor 1 − γλ would lose most of γλ to rounding.
 *
 * @param gradient - `[P]`.
 * @param coefficients - As {@link adamWCoefficients} gives them.
 * @returns The new state, and ‖g‖ before clipping (a scalar), which is not finite where an element of g is not, and
 *   where Σ g² leaves float32's range.
 */
export function addAdamW(
  { parameters, first, second }: PackedState,
  gradient: Value,
  coefficients: Value,
): PackedState & { norm: Value } {
  const c = Object.fromEntries(COEFFICIENTS.map((name, i) => [name, ops.slice(coefficients, 0, i, i + 1)])) as Record<
    (typeof COEFFICIENTS)[number],
    Value
  >;
  const { graph } = gradient;
  const rows = ops.reshape(ops.mul(gradient, gradient), [gradient.size / PACKED_ROW, PACKED_ROW]);
  // Row by row: many partial sums run beside each other on a GPU, and round less than one long sum.
  const norm = ops.sqrt(ops.reduceSum(ops.reduceSum(rows, [1])));
  const ratio = ops.div(c.maxNorm, ops.add(norm, 1e-6));
  const one = graph.scalar(1);
  const g = ops.mul(gradient, ops.where(ops.greater(one, ratio), ratio, one));
  const m = ops.add(ops.mul(first, c.beta1), ops.mul(g, c.gain1));
  const v = ops.add(ops.mul(second, c.beta2), ops.mul(ops.mul(g, g), c.gain2));
  const root = ops.add(ops.mul(ops.sqrt(v), c.rootScale), c.eps);
  const change = ops.add(ops.mul(parameters, c.decay), ops.div(ops.mul(m, c.stepSize), root));
  return { parameters: ops.sub(parameters, change), first: m, second: v, norm };
}
