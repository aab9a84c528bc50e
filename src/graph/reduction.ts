// Reductions over axes, and softmax.

import type { Value } from "./graph.js";
import { requireFloat32, resolveAxis } from "./shapes.js";

function reduce(
  op: "ReduceSum" | "ReduceMean",
  x: Value,
  axes: readonly number[] | undefined,
  keepDims: boolean,
): Value {
  requireFloat32(op, { x });
  const chosen = axes ? axes.map((axis) => resolveAxis(op, axis, x)).sort((a, b) => a - b) : x.shape.map((_, i) => i);
  if (chosen.length === 0) return x;
  const shape = keepDims
    ? x.shape.map((dimension, i) => (chosen.includes(i) ? 1 : dimension))
    : x.shape.filter((_, i) => !chosen.includes(i));
  return x.graph.node(op, [x], { axes: chosen, keepDims }, [{ dtype: "float32", shape }]).outputs[0]!;
}

/** Sum over `axes`, over all of them by default. */
export const reduceSum = (x: Value, axes?: readonly number[], keepDims = false): Value =>
  reduce("ReduceSum", x, axes, keepDims);

/** Mean over `axes`, over all of them by default. */
export const reduceMean = (x: Value, axes?: readonly number[], keepDims = false): Value =>
  reduce("ReduceMean", x, axes, keepDims);

/** exp(x) / Σ exp(x) over the last axis. */
export function softmax(x: Value): Value {
  requireFloat32("Softmax", { x });
  resolveAxis("Softmax", -1, x);
  return x.graph.node("Softmax", [x], {}, [{ dtype: "float32", shape: x.shape }]).outputs[0]!;
}
