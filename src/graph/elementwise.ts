// Elementwise operators. Two inputs broadcast as in numpy.

import type { DType } from "../tensor/tensor.js";
import type { Value } from "./graph.js";
import { broadcastShapes, fail, requireFloat32 } from "./shapes.js";

type Binary = "Add" | "Sub" | "Mul" | "Div";
type Unary =
  | "Neg"
  | "Exp"
  | "Log"
  | "Sqrt"
  | "Sin"
  | "Cos"
  | "Sigmoid"
  | "Tanh"
  | "Relu"
  | "Silu"
  | "Gelu"
  | "GeluTanh"
  | "QuickGelu"
  | "Erf";

function binary(op: Binary, a: Value, b: Value | number): Value {
  const right = typeof b === "number" ? a.graph.scalar(b) : b;
  requireFloat32(op, { a, b: right });
  const shape = broadcastShapes(a.shape, right.shape) ?? fail(op, "shapes must broadcast", { a, b: right });
  return a.graph.node(op, [a, right], {}, [{ dtype: a.dtype, shape }]).outputs[0]!;
}

function unary(op: Unary, x: Value): Value {
  requireFloat32(op, { x });
  return x.graph.node(op, [x], {}, [{ dtype: x.dtype, shape: x.shape }]).outputs[0]!;
}

/** a + b. */
export const add = (a: Value, b: Value | number): Value => binary("Add", a, b);
/** a − b. */
export const sub = (a: Value, b: Value | number): Value => binary("Sub", a, b);
/** a · b. */
export const mul = (a: Value, b: Value | number): Value => binary("Mul", a, b);
/** a / b. */
export const div = (a: Value, b: Value | number): Value => binary("Div", a, b);
/** −x. */
export const neg = (x: Value): Value => unary("Neg", x);
/** eˣ. */
export const exp = (x: Value): Value => unary("Exp", x);
/** Natural logarithm of x > 0. */
export const log = (x: Value): Value => unary("Log", x);
/** √x of x ≥ 0. */
export const sqrt = (x: Value): Value => unary("Sqrt", x);
/** Sine of radians. */
export const sin = (x: Value): Value => unary("Sin", x);
/** Cosine of radians. */
export const cos = (x: Value): Value => unary("Cos", x);
/** 1 / (1 + e⁻ˣ). */
export const sigmoid = (x: Value): Value => unary("Sigmoid", x);
/** Hyperbolic tangent. */
export const tanh = (x: Value): Value => unary("Tanh", x);
/** max(x, 0). */
export const relu = (x: Value): Value => unary("Relu", x);
/** x · sigmoid(x). @see Elfwing et al. 2017, arXiv:1702.03118 */
export const silu = (x: Value): Value => unary("Silu", x);
/** x · Φ(x) with the exact normal distribution function. @see Hendrycks & Gimpel 2016, arXiv:1606.08415 */
export const gelu = (x: Value): Value => unary("Gelu", x);
/** x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))): the approximation of {@link gelu} that some models were trained with. */
export const geluTanh = (x: Value): Value => unary("GeluTanh", x);
/** x · sigmoid(1.702 x), CLIP's activation. */
export const quickGelu = (x: Value): Value => unary("QuickGelu", x);
/** The error function. */
export const erf = (x: Value): Value => unary("Erf", x);

/** Converts elements to another dtype. Not differentiable: a gradient stops at it by name. */
export function cast(x: Value, to: DType): Value {
  if (x.dtype === to) return x;
  return x.graph.node("Cast", [x], { to }, [{ dtype: to, shape: x.shape }]).outputs[0]!;
}

/** a > b, elementwise, as bool. */
export function greater(a: Value, b: Value | number): Value {
  const right = typeof b === "number" ? a.graph.scalar(b) : b;
  requireFloat32("Greater", { a, b: right });
  const shape = broadcastShapes(a.shape, right.shape) ?? fail("Greater", "shapes must broadcast", { a, b: right });
  return a.graph.node("Greater", [a, right], {}, [{ dtype: "bool", shape }]).outputs[0]!;
}

/** `condition ? a : b`, elementwise; the gradient flows into the chosen side only. */
export function where(condition: Value, a: Value, b: Value): Value {
  if (condition.dtype !== "bool") fail("Where", "the condition must be bool", { condition });
  requireFloat32("Where", { a, b });
  const sides = broadcastShapes(a.shape, b.shape) ?? fail("Where", "shapes must broadcast", { a, b });
  const shape = broadcastShapes(condition.shape, sides) ?? fail("Where", "shapes must broadcast", { condition, a, b });
  return a.graph.node("Where", [condition, a, b], {}, [{ dtype: "float32", shape }]).outputs[0]!;
}

/** x itself, through which no gradient flows. */
export function stopGradient(x: Value): Value {
  return x.graph.node("StopGradient", [x], {}, [{ dtype: x.dtype, shape: x.shape }]).outputs[0]!;
}
