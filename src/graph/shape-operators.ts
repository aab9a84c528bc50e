// Operators that move elements without changing them.

import { ShapeError } from "../errors.js";
import { sizeOf, type Tensor } from "../tensor/tensor.js";
import type { Value } from "./graph.js";
import { broadcastShapes, fail, requireFloat32, resolveAxis, sameShape } from "./shapes.js";

/**
 * The same elements under another shape.
 *
 * Constants and weights in files are aliased while building, so that e.g. a 1×1 kernel read as a matrix costs nothing.
 *
 * @param shape - One dimension may be −1, to be inferred.
 */
export function reshape(x: Value, shape: readonly number[]): Value {
  const known = shape.reduce((size, dimension) => (dimension === -1 ? size : size * dimension), 1);
  const target = shape.map((dimension) => (dimension === -1 ? x.size / known : dimension));
  if (sizeOf(target) !== x.size || target.some((dimension) => !Number.isInteger(dimension) || dimension < 0)) {
    fail("Reshape", `[${shape.join(",")}] must hold ${x.size} elements`, { x });
  }
  if (sameShape(target, x.shape)) return x;
  if (x.source.kind === "constant") return x.graph.constant(x.source.tensor.reshape(target) as Tensor);
  if (x.source.kind === "file") return x.graph.file(x.source.name, x.dtype, target, x.source.range);
  if (x.source.kind === "node" && x.source.node.op === "Reshape") return reshape(x.source.node.inputs[0]!, target);
  return x.graph.node("Reshape", [x], { shape: target }, [{ dtype: x.dtype, shape: target }]).outputs[0]!;
}

/**
 * `x` itself, available only once all of `gradients` are: what is computed from the result cannot run earlier.
 *
 * Costs no copy and reads no element of either.
 */
export function after(x: Value, gradients: readonly Value[]): Value {
  if (gradients.length === 0) return x;
  return x.graph.node("After", [x, ...gradients], {}, [{ dtype: x.dtype, shape: x.shape }]).outputs[0]!;
}

/** Permutes the axes: output axis i is input axis `permutation[i]`. */
export function transpose(x: Value, permutation: readonly number[]): Value {
  const sorted = [...permutation].sort((a, b) => a - b);
  if (permutation.length !== x.rank || sorted.some((axis, i) => axis !== i)) {
    fail("Transpose", `[${permutation.join(",")}] must be a permutation of the axes`, { x });
  }
  const shape = permutation.map((axis) => x.shape[axis]!);
  return x.graph.node("Transpose", [x], { permutation: [...permutation] }, [{ dtype: x.dtype, shape }]).outputs[0]!;
}

/** Joins values along an axis. */
export function concat(values: readonly Value[], axis: number): Value {
  const first = values[0];
  if (!first) throw new ShapeError("Concat: at least one value is needed; got none.");
  if (values.length === 1) return first;
  const along = resolveAxis("Concat", axis, first);
  for (const value of values) {
    const fits =
      value.rank === first.rank &&
      value.dtype === first.dtype &&
      value.shape.every((dimension, i) => i === along || dimension === first.shape[i]);
    if (!fits) fail("Concat", `shapes must agree except along axis ${along}`, { first, other: value });
  }
  const shape = [...first.shape];
  shape[along] = values.reduce((sum, value) => sum + value.shape[along]!, 0);
  return first.graph.node("Concat", [...values], { axis: along }, [{ dtype: first.dtype, shape }]).outputs[0]!;
}

/** Elements `start` (included) to `end` (excluded) along an axis. */
export function slice(x: Value, axis: number, start: number, end: number): Value {
  const along = resolveAxis("Slice", axis, x);
  const length = x.shape[along]!;
  if (!(start >= 0 && start < end && end <= length)) {
    fail("Slice", `the range ${start}..${end} must lie within the ${length} elements of axis ${along}`, { x });
  }
  if (start === 0 && end === length) return x;
  const shape = [...x.shape];
  shape[along] = end - start;
  return x.graph.node("Slice", [x], { axis: along, start, end }, [{ dtype: x.dtype, shape }]).outputs[0]!;
}

/** Adds zeros before and after along an axis. */
export function pad(x: Value, axis: number, before: number, after: number): Value {
  requireFloat32("Pad", { x });
  const along = resolveAxis("Pad", axis, x);
  if (before < 0 || after < 0) fail("Pad", "padding must not be negative", { x, before, after });
  if (before === 0 && after === 0) return x;
  const shape = [...x.shape];
  shape[along] = shape[along]! + before + after;
  return x.graph.node("Pad", [x], { axis: along, before, after }, [{ dtype: x.dtype, shape }]).outputs[0]!;
}

/** Repeats along axes of size 1, as numpy's broadcast_to. */
export function expand(x: Value, shape: readonly number[]): Value {
  if (sameShape(x.shape, shape)) return x;
  const result = broadcastShapes(x.shape, shape);
  if (!result || !sameShape(result, shape)) fail("Expand", `must broadcast to [${shape.join(",")}]`, { x });
  return x.graph.node("Expand", [x], { shape: [...shape] }, [{ dtype: x.dtype, shape }]).outputs[0]!;
}

/**
 * Rows of a table: an embedding.
 *
 * @param table - `[V, D]`.
 * @param indices - int64 or int32 of any shape, each in 0 … V−1.
 * @returns `[...indices.shape, D]`.
 */
export function gather(table: Value, indices: Value): Value {
  if (table.rank !== 2) fail("Gather", "the table must be [rows, columns]", { table });
  if (indices.dtype !== "int64" && indices.dtype !== "int32") fail("Gather", "indices must be integers", { indices });
  const shape = [...indices.shape, table.shape[1]!];
  return table.graph.node("Gather", [table, indices], {}, [{ dtype: table.dtype, shape }]).outputs[0]!;
}

/**
 * The adjoint of {@link gather}: adds each update to the row that its index names.
 *
 * @param updates - `[N, D]`.
 * @param indices - Integers `[N]`.
 * @returns `[rows, D]`.
 */
export function scatterSum(updates: Value, indices: Value, rows: number): Value {
  if (updates.rank !== 2 || indices.rank !== 1 || indices.size !== updates.shape[0]) {
    fail("ScatterSum", "updates must be [N, D] and indices [N]", { updates, indices });
  }
  const shape = [rows, updates.shape[1]!];
  return updates.graph.node("ScatterSum", [updates, indices], { rows }, [{ dtype: updates.dtype, shape }]).outputs[0]!;
}
