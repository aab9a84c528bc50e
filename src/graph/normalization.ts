// Normalization over channel groups and over features. They also yield the statistics that their gradients use.

import type { Value } from "./graph.js";
import { fail, requireFloat32, sameShape } from "./shapes.js";

/** A normalized value and the statistics that made it. */
export interface Normalized {
  y: Value;
  mean: Value;
  reciprocalStd: Value;
}

/**
 * Normalizes channels within groups: y = (x − mean) / sqrt(var + epsilon) · weight + bias.
 *
 * @param x - `[B, C, ...]`.
 * @param weight - `[C]`.
 * @param bias - `[C]`.
 * @param groups - Divides C.
 * @returns y like x; statistics `[B, groups, 1]`.
 * @throws {ShapeError} If `groups` does not divide C.
 * @see Wu & He 2018, arXiv:1803.08494
 */
export function groupNorm(x: Value, weight: Value, bias: Value, groups: number, epsilon: number): Normalized {
  requireFloat32("groupNorm", { x, weight, bias });
  if (x.rank < 3) fail("groupNorm", "x must be [B, C, ...]", { x });
  const channels = x.shape[1]!;
  if (!Number.isInteger(groups) || groups < 1 || channels % groups !== 0) {
    fail("groupNorm", "groups must divide channels", { x, groups }, "Check norm_num_groups in config.json.");
  }
  if (!sameShape(weight.shape, [channels]) || !sameShape(bias.shape, [channels])) {
    fail("groupNorm", `weight and bias must be [${channels}]`, { weight, bias });
  }
  const statistics = { dtype: "float32", shape: [x.shape[0]!, groups, 1] } as const;
  const [y, mean, reciprocalStd] = x.graph.node("GroupNorm", [x, weight, bias], { groups, epsilon }, [
    { dtype: "float32", shape: x.shape },
    statistics,
    statistics,
  ]).outputs as [Value, Value, Value];
  return { y, mean, reciprocalStd };
}

/**
 * Normalizes the last axis: y = (x − mean) / sqrt(var + epsilon) · weight + bias.
 *
 * @param x - `[..., D]`.
 * @param weight - `[D]`; absent where nothing is scaled.
 * @param bias - `[D]`; absent where nothing is shifted, and where there is no weight.
 * @returns y like x; statistics `[..., 1]`.
 * @see Ba et al. 2016, arXiv:1607.06450
 */
export function layerNorm(x: Value, weight: Value | undefined, bias: Value | undefined, epsilon: number): Normalized {
  requireFloat32("layerNorm", { x, weight, bias });
  const features = x.shape.at(-1) ?? 0;
  if (bias && !weight) fail("layerNorm", "a bias needs a weight", { x, weight, bias });
  if ([weight, bias].some((each) => each && !sameShape(each.shape, [features]))) {
    fail("layerNorm", `weight and bias must be [${features}]`, { x, weight, bias });
  }
  const statistics = { dtype: "float32", shape: [...x.shape.slice(0, -1), 1] } as const;
  const [y, mean, reciprocalStd] = x.graph.node("LayerNorm", [x, weight, bias], { epsilon }, [
    { dtype: "float32", shape: x.shape },
    statistics,
    statistics,
  ]).outputs as [Value, Value, Value];
  return { y, mean, reciprocalStd };
}

/**
 * Divides the last axis by its root mean square: y = x / sqrt(mean(x²) + epsilon) · weight.
 *
 * @param x - `[..., D]`.
 * @param weight - `[D]`; absent where nothing is scaled.
 * @returns Same shape as x.
 * @see Zhang & Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm(x: Value, weight: Value | undefined, epsilon: number): Value {
  requireFloat32("rmsNorm", { x, weight });
  const features = x.shape.at(-1) ?? 0;
  if (weight && !sameShape(weight.shape, [features]))
    fail("rmsNorm", `the weight must be [${features}]`, { x, weight });
  return x.graph.node("RmsNorm", [x, weight], { epsilon }, [
    { dtype: "float32", shape: x.shape },
    { dtype: "float32", shape: [...x.shape.slice(0, -1), 1] },
  ]).outputs[0]!;
}
