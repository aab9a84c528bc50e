// The gradient of every operator, in one table. A rule states only its own mathematics: the walker in gradients.ts
// accumulates, and sums over broadcast axes.

import {
  type Attributes,
  add,
  attentionGradient,
  convInputGradient,
  convWeightGradient,
  cos,
  div,
  erf,
  exp,
  expand,
  gelu,
  greater,
  matMul,
  mul,
  type Node,
  neg,
  type OperatorName,
  pad,
  reduceMean,
  reduceSum,
  reshape,
  rotary,
  scatterSum,
  sigmoid,
  silu,
  sin,
  slice,
  sub,
  sumPool,
  transpose,
  upsampleNearest,
  type Value,
  where,
} from "../graph/index.js";

/** What a rule sees of its node. */
export interface RuleContext<Op extends OperatorName> {
  /** Inputs as given; an absent optional input is undefined. */
  x: readonly Value[];
  y: Value;
  dy: Value;
  attributes: Attributes[Op];
  /** Which inputs lead to a wanted value; the others' gradients need not be made. */
  needs: readonly boolean[];
  node: Node<Op>;
}

/** Gradients per input, at the shape of the output where the operator broadcasts. */
export type Rule<Op extends OperatorName> = (context: RuleContext<Op>) => (Value | undefined)[];

/** Marks an operator through which no gradient can be taken, and says why. */
export class NoGradient {
  constructor(readonly reason: string) {}
}

type RuleTable = { [Op in OperatorName]: Rule<Op> | NoGradient };

const secondOrder = new NoGradient("it is itself a gradient, and second derivatives are not supported");

/** −1/2 · x² under the exponential, over √(2π): the normal density φ. */
const normalDensity = (x: Value): Value => mul(exp(mul(mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
/** (1 + erf(x/√2)) / 2: the normal distribution Φ. */
const normalDistribution = (x: Value): Value => mul(add(erf(mul(x, Math.SQRT1_2)), 1), 0.5);
/** d silu(x)/dx = s + y − y s with s = sigmoid(x), y = x s; y is recomputed, since nothing else needs it stored. */
function siluDerivative(x: Value): Value {
  const s = sigmoid(x);
  const y = mul(x, s);
  return sub(add(s, y), mul(y, s));
}
/** d gelu(x)/dx = Φ(x) + x φ(x). */
const geluDerivative = (x: Value): Value => add(normalDistribution(x), mul(x, normalDensity(x)));

export const RULES: RuleTable = {
  Add: ({ dy }) => [dy, dy],
  Sub: ({ dy, needs }) => [dy, needs[1] ? neg(dy) : undefined],
  Mul: ({ x: [a, b], dy, needs }) => [needs[0] ? mul(dy, b!) : undefined, needs[1] ? mul(dy, a!) : undefined],
  // d(a/b) = da/b − y/b · db
  Div: ({ x: [, b], y, dy, needs }) => {
    const da = div(dy, b!);
    return [da, needs[1] ? neg(mul(da, y)) : undefined];
  },
  Neg: ({ dy }) => [neg(dy)],
  Exp: ({ y, dy }) => [mul(dy, y)],
  Log: ({ x: [x], dy }) => [div(dy, x!)],
  // Taken as 0 at x = 0, where the derivative is infinite: norms need it (‖δ‖ of a fresh adapter), with no NaN on the way.
  Sqrt: ({ x: [x], y, dy }) => {
    const positive = greater(x!, 0);
    const safe = where(positive, y, x!.graph.scalar(1));
    return [where(positive, mul(div(dy, safe), 0.5), x!.graph.scalar(0))];
  },
  Sin: ({ x: [x], dy }) => [mul(dy, cos(x!))],
  Cos: ({ x: [x], dy }) => [neg(mul(dy, sin(x!)))],
  Sigmoid: ({ y, dy }) => [mul(dy, sub(y, mul(y, y)))],
  Tanh: ({ y, dy }) => [sub(dy, mul(dy, mul(y, y)))],
  Relu: ({ x: [x], dy }) => [where(greater(x!, 0), dy, dy.graph.scalar(0))],
  Silu: ({ x: [x], dy }) => [mul(dy, siluDerivative(x!))],
  Gelu: ({ x: [x], dy }) => [mul(dy, geluDerivative(x!))],
  // (1 + tanh u)/2 = s(2u). With 2u = x (c + k x²):  y = x s  ⇒  y' = s (1 + (1 − s) (2u + 2k x³))
  GeluTanh: ({ x: [x], dy }) => {
    const c = 2 * Math.sqrt(2 / Math.PI);
    const cubic = mul(mul(x!, x!), 0.044715 * c);
    const u2 = mul(x!, add(cubic, c));
    const s = sigmoid(u2);
    const inner = add(u2, mul(mul(x!, cubic), 2));
    return [mul(dy, mul(s, add(mul(sub(inner.graph.scalar(1), s), inner), 1)))];
  },
  // y = x s(1.702 x)  ⇒  y' = s + 1.702 y (1 − s)
  QuickGelu: ({ x: [x], y, dy }) => {
    const s = sigmoid(mul(x!, 1.702));
    return [mul(dy, add(s, mul(sub(y, mul(y, s)), 1.702)))];
  },
  Erf: ({ x: [x], dy }) => [mul(dy, mul(exp(neg(mul(x!, x!))), 2 / Math.sqrt(Math.PI)))],
  Cast: new NoGradient("conversions are meant for inputs"),
  Greater: new NoGradient("a comparison has no derivative"),
  Where: ({ x: [condition], dy, needs }) => {
    const zero = dy.graph.scalar(0);
    return [
      undefined,
      needs[1] ? where(condition!, dy, zero) : undefined,
      needs[2] ? where(condition!, zero, dy) : undefined,
    ];
  },
  StopGradient: () => [undefined],
  After: new NoGradient("it orders the gradients' own computation"),

  ReduceSum: ({ x: [x], dy, attributes }) => [expand(keepAxes(dy, x!, attributes.axes), x!.shape)],
  ReduceMean: ({ x: [x], y, dy, attributes }) => [
    expand(keepAxes(mul(dy, y.size / x!.size), x!, attributes.axes), x!.shape),
  ],
  // dx = y ∘ (dy − Σ dy ∘ y)
  Softmax: ({ y, dy }) => [mul(y, sub(dy, reduceSum(mul(dy, y), [-1], true)))],

  Reshape: ({ x: [x], dy }) => [reshape(dy, x!.shape)],
  Transpose: ({ dy, attributes: { permutation } }) => [
    transpose(
      dy,
      permutation.map((_, i) => permutation.indexOf(i)),
    ),
  ],
  Concat: ({ x, dy, attributes: { axis }, needs }) => {
    let start = 0;
    return x.map((value, i) => {
      const end = start + value.shape[axis]!;
      const part = needs[i] ? slice(dy, axis, start, end) : undefined;
      start = end;
      return part;
    });
  },
  Slice: ({ x: [x], dy, attributes: { axis, start, end } }) => [pad(dy, axis, start, x!.shape[axis]! - end)],
  Pad: ({ x: [x], dy, attributes: { axis, before } }) => [slice(dy, axis, before, before + x!.shape[axis]!)],
  Expand: ({ dy }) => [dy],
  Gather: ({ x: [table, indices], dy }) => [
    scatterSum(reshape(dy, [-1, table!.shape[1]!]), reshape(indices!, [indices!.size]), table!.shape[0]!),
  ],
  ScatterSum: secondOrder,

  // y = op(a) op(b): da = dy op(b)ᵀ, transposed where a was; db likewise.
  MatMul: ({ x: [a, b], dy, attributes: { transposeA, transposeB }, needs }) => [
    needs[0] ? matMulLeft(b!, dy, transposeA, transposeB) : undefined,
    needs[1] ? matMulRight(a!, b!, dy, transposeA, transposeB) : undefined,
  ],
  // dx = dy W, dW = dyᵀ x, db = Σ dy, over all leading axes at once.
  Linear: ({ x: [x, weight], dy, needs }) => [
    needs[0] ? reshape(matMul(dy.rank > 1 ? dy : rowsOf(dy), weight!), x!.shape) : undefined,
    needs[1] ? matMul(rowsOf(dy), rowsOf(x!), { transposeA: true }) : undefined,
    needs[2] ? reduceSum(rowsOf(dy), [0]) : undefined,
  ],
  // y = a gelu(b): da = dy gelu(b), db = dy a gelu'(b)
  Geglu: ({ x: [a, b], dy, needs }) => [
    needs[0] ? mul(dy, gelu(b!)) : undefined,
    needs[1] ? mul(mul(dy, a!), geluDerivative(b!)) : undefined,
  ],

  // y = silu(a) b: da = dy b silu'(a), db = dy silu(a)
  Swiglu: ({ x: [a, b], dy, needs }) => [
    needs[0] ? mul(mul(dy, b!), siluDerivative(a!)) : undefined,
    needs[1] ? mul(dy, silu(a!)) : undefined,
  ],

  Conv: ({ x: [x, weight], dy, attributes, needs }) => [
    needs[0] ? convInputGradient(dy, weight!, attributes, x!.shape) : undefined,
    needs[1] ? convWeightGradient(dy, x!, attributes, weight!.shape) : undefined,
    needs[2] ? reduceSum(dy, [0, 2, 3]) : undefined,
  ],
  ConvInputGradient: secondOrder,
  ConvWeightGradient: secondOrder,
  UpsampleNearest: ({ dy, attributes: { scale } }) => [sumPool(dy, scale)],
  SumPool: ({ dy, attributes: { scale } }) => [upsampleNearest(dy, scale)],

  GroupNorm: (context) => groupNormGradient(context),
  LayerNorm: (context) => layerNormGradient(context),
  RmsNorm: (context) => rmsNormGradient(context),

  Attention: ({ x: [q, k, v], y, dy, attributes }) => attentionGradient(q!, k!, v!, y, dy, attributes),
  AttentionGradient: secondOrder,
  // A rotation back.
  Rotary: ({ x: [, cos, sin], dy, attributes }) => [rotary(dy, cos!, neg(sin!), attributes), undefined, undefined],
};

/** Puts reduced axes back as size 1. */
function keepAxes(dy: Value, x: Value, axes: readonly number[]): Value {
  return reshape(
    dy,
    x.shape.map((dimension, i) => (axes.includes(i) ? 1 : dimension)),
  );
}

/** All leading axes as one. */
const rowsOf = (value: Value): Value => reshape(value, [-1, value.shape.at(-1)!]);

function matMulLeft(b: Value, dy: Value, transposeA: boolean, transposeB: boolean): Value {
  if (transposeA) return matMul(b, dy, { transposeA: transposeB, transposeB: true });
  return matMul(dy, b, { transposeB: !transposeB });
}

function matMulRight(a: Value, b: Value, dy: Value, transposeA: boolean, transposeB: boolean): Value {
  if (a.rank > 2 && b.rank === 2 && !transposeA) {
    const [left, rows] = [rowsOf(a), rowsOf(dy)];
    return transposeB ? matMul(rows, left, { transposeA: true }) : matMul(left, rows, { transposeA: true });
  }
  if (transposeB) return matMul(dy, a, { transposeA: true, transposeB: transposeA });
  return matMul(a, dy, { transposeA: !transposeA });
}

/**
 * Per channel s1 = Σ dy, s2 = Σ dy·x; per group of M elements m1 = Σ γ s1 / M, m2 = (Σ γ s2 / M − mean·m1)·rstd.
 * dx = dy·(γ rstd) + x·B + C with B = −rstd² m2 and C = −B·mean − rstd·m1: two passes over the image, none stored.
 * dγ = Σ_batch (s2 − mean·s1)·rstd, dβ = Σ_batch s1.
 */
function groupNormGradient({
  x: inputs,
  dy,
  attributes,
  needs,
  node,
}: RuleContext<"GroupNorm">): (Value | undefined)[] {
  const [x, weight] = inputs as [Value, Value];
  const [, mean, reciprocalStd] = node.outputs as [Value, Value, Value];
  const batch = x.shape[0]!;
  const channels = x.shape[1]!;
  const perGroup = channels / attributes.groups;
  const pixels = x.size / (batch * channels);
  const grouped = [batch, attributes.groups, perGroup];
  const x3 = reshape(x, [batch, channels, pixels]);
  const dy3 = reshape(dy, [batch, channels, pixels]);
  const s1 = reshape(reduceSum(dy3, [2]), grouped);
  const s2 = reshape(reduceSum(mul(dy3, x3), [2]), grouped);
  let dx: Value | undefined;
  if (needs[0]) {
    const gamma = reshape(weight, [1, attributes.groups, perGroup]);
    const count = perGroup * pixels;
    const m1 = mul(reduceSum(mul(gamma, s1), [2], true), 1 / count);
    const m2 = mul(sub(mul(reduceSum(mul(gamma, s2), [2], true), 1 / count), mul(mean, m1)), reciprocalStd);
    const b = neg(mul(mul(reciprocalStd, reciprocalStd), m2));
    const c = neg(add(mul(b, mean), mul(reciprocalStd, m1)));
    const scale = reshape(mul(gamma, reciprocalStd), [batch, channels, 1]);
    const perChannel = (value: Value): Value => reshape(expand(value, grouped), [batch, channels, 1]);
    dx = reshape(add(mul(dy3, scale), add(mul(x3, perChannel(b)), perChannel(c))), x.shape);
  }
  const dGamma = needs[1] ? reshape(reduceSum(mul(sub(s2, mul(mean, s1)), reciprocalStd), [0]), [channels]) : undefined;
  const dBeta = needs[2] ? reshape(reduceSum(s1, [0]), [channels]) : undefined;
  return [dx, dGamma, dBeta];
}

/** With x̂ = (x − mean)·rstd and g = γ dy: dx = rstd·(g − mean(g) − x̂·mean(g x̂)), dγ = Σ dy x̂, dβ = Σ dy. */
function layerNormGradient({ x: inputs, dy, needs, node }: RuleContext<"LayerNorm">): (Value | undefined)[] {
  const [x, weight] = inputs as [Value, Value | undefined];
  const [, mean, reciprocalStd] = node.outputs as [Value, Value, Value];
  const normalized = mul(sub(x, mean), reciprocalStd);
  const leading = x.shape.slice(0, -1).map((_, i) => i);
  let dx: Value | undefined;
  if (needs[0]) {
    const g = weight ? mul(dy, weight) : dy;
    const projection = mul(normalized, reduceMean(mul(g, normalized), [-1], true));
    dx = mul(reciprocalStd, sub(sub(g, reduceMean(g, [-1], true)), projection));
  }
  return [
    dx,
    needs[1] ? reduceSum(mul(dy, normalized), leading) : undefined,
    needs[2] ? reduceSum(dy, leading) : undefined,
  ];
}

/** With x̂ = x·r, r = 1/rms, and g = γ dy: dx = r·(g − x̂·mean(g x̂)), dγ = Σ dy x̂. */
function rmsNormGradient({ x: inputs, dy, needs, node }: RuleContext<"RmsNorm">): (Value | undefined)[] {
  const [x, weight] = inputs as [Value, Value | undefined];
  const [, reciprocalRms] = node.outputs as [Value, Value];
  const normalized = mul(x, reciprocalRms);
  const leading = x.shape.slice(0, -1).map((_, i) => i);
  let dx: Value | undefined;
  if (needs[0]) {
    const g = weight ? mul(dy, weight) : dy;
    dx = mul(reciprocalRms, sub(g, mul(normalized, reduceMean(mul(g, normalized), [-1], true))));
  }
  return [dx, needs[1] ? reduceSum(mul(dy, normalized), leading) : undefined];
}
