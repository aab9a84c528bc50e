// Matrix products.

import { add, mul } from "./elementwise.js";
import { canTakeRows, type Value } from "./graph.js";
import { slice } from "./shape-operators.js";
import { broadcastShapes, fail, requireFloat32, sameShape } from "./shapes.js";

/**
 * Batched matrix product op(a) · op(b) over the last two axes; the axes before broadcast.
 *
 * @param a - `[..., M, K]`, or `[..., K, M]` with `transposeA`.
 * @param b - `[..., K, N]`, or `[..., N, K]` with `transposeB`.
 * @returns `[..., M, N]`.
 */
export function matMul(a: Value, b: Value, options: { transposeA?: boolean; transposeB?: boolean } = {}): Value {
  const { transposeA = false, transposeB = false } = options;
  requireFloat32("MatMul", { a, b });
  if (a.rank < 2 || b.rank < 2) fail("MatMul", "both sides need at least two axes", { a, b });
  const [aRows, aColumns] = lastTwo(a, transposeA);
  const [bRows, bColumns] = lastTwo(b, transposeB);
  if (aColumns !== bRows) fail("MatMul", `inner sizes must agree (${aColumns} and ${bRows})`, { a, b });
  const batch =
    broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2)) ??
    fail("MatMul", "batch axes must broadcast", { a, b });
  const shape = [...batch, aRows, bColumns];
  return a.graph.node("MatMul", [a, b], { transposeA, transposeB }, [{ dtype: "float32", shape }]).outputs[0]!;
}

/**
 * y = x Wᵀ + b over the last axis.
 *
 * @param x - `[..., in]`.
 * @param weight - `[out, in]`.
 * @param bias - `[out]`.
 * @returns `[..., out]`.
 */
export function linear(x: Value, weight: Value, bias?: Value): Value {
  requireFloat32("Linear", { x, weight, bias });
  const features = x.shape.at(-1);
  if (weight.rank !== 2 || weight.shape[1] !== features) {
    fail("Linear", "the weight must be [out, in] with in the last axis of x", { x, weight });
  }
  const out = weight.shape[0]!;
  if (bias && !sameShape(bias.shape, [out])) fail("Linear", `the bias must be [${out}]`, { bias });
  const shape = [...x.shape.slice(0, -1), out];
  return x.graph.node("Linear", [x, weight, bias], {}, [{ dtype: "float32", shape }]).outputs[0]!;
}

/**
 * a · gelu(b) where `[a, b]` are the halves of the last axis, made by {@link splitFeatures}.
 *
 * @param x - `[..., 2D]`.
 * @returns `[..., D]`.
 * @see Shazeer 2020, arXiv:2002.05202
 */
export function geglu(x: Value): Value {
  requireFloat32("Geglu", { x });
  const features = x.shape.at(-1) ?? 0;
  if (features === 0 || features % 2 !== 0) fail("Geglu", "the last axis must be even", { x });
  const [a, b] = splitFeatures(x, [features / 2, features / 2]) as [Value, Value];
  return x.graph.node("Geglu", [a, b], {}, [{ dtype: "float32", shape: a.shape }]).outputs[0]!;
}

/**
 * silu(a) · b.
 *
 * @param b - Of a's shape.
 * @see Shazeer 2020, arXiv:2002.05202
 */
export function swiglu(a: Value, b: Value): Value {
  requireFloat32("Swiglu", { a, b });
  if (!sameShape(a.shape, b.shape)) fail("Swiglu", "both must have one shape", { a, b });
  return a.graph.node("Swiglu", [a, b], {}, [{ dtype: "float32", shape: a.shape }]).outputs[0]!;
}

/**
 * Divides the last axis into parts of the given sizes.
 *
 * Of a linear layer, adapted or not, the parts are made as products of their own, so that its output need not be split.
 *
 * @param sizes - Their sum is the size of the axis.
 */
export function splitFeatures(x: Value, sizes: readonly number[]): Value[] {
  const features = x.shape.at(-1) ?? 0;
  if (sizes.reduce((sum, size) => sum + size, 0) !== features) {
    fail("splitFeatures", `the sizes ${sizes.join(", ")} must add up to the last axis`, { x });
  }
  // The parts belong to the layer that makes x.
  return x.graph.inLayer(x.graph.layerOf([x]), () => {
    let start = 0;
    return sizes.map((size) => {
      const end = start + size;
      const part = linearPart(x, start, end) ?? slice(x, -1, start, end);
      start = end;
      return part;
    });
  });
}

/**
 * Some features of a linear layer's output, or of a sum of such layers (one with its adapters, scaled or not), by products with
 * these rows of the weights; undefined of anything else, and where the weight to be cut is larger than the output.
 */
function linearPart(y: Value, start: number, end: number): Value | undefined {
  if (y.source.kind !== "node") return undefined;
  const { op, inputs } = y.source.node;
  if (op === "Add") {
    const terms = inputs.map((term) => (sameShape(term!.shape, y.shape) ? linearPart(term!, start, end) : undefined));
    return terms[0] && terms[1] && add(terms[0], terms[1]);
  }
  if (op === "Mul" && inputs[1]!.size === 1) {
    const part = linearPart(inputs[0]!, start, end);
    return part && mul(part, inputs[1]!);
  }
  if (op !== "Linear") return undefined;
  const [x, weight, bias] = inputs as [Value, Value, Value | undefined];
  const { source } = weight;
  if (source.kind !== "file" && source.kind !== "constant" && weight.size > y.size) return undefined;
  if (source.kind === "file" && !canTakeRows(source.range, weight.shape[0]!, start, end)) return undefined;
  return linear(x, rows(weight, start, end), bias && rows(bias, start, end));
}

const rows = (value: Value, start: number, end: number): Value =>
  value.graph.frozenRows(value, start, end) ?? slice(value, 0, start, end);

function lastTwo(x: Value, transposed: boolean): [number, number] {
  const rows = x.shape.at(-2)!;
  const columns = x.shape.at(-1)!;
  return transposed ? [columns, rows] : [rows, columns];
}
