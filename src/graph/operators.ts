// The list of operators and the attributes of each. Families of builder functions sit in the files beside this one;
// gradients in autodiff/rules.ts; the ONNX form of each in onnx/lowerings.ts.

/** Attributes of every operator. `Record<never, never>` marks operators without any. */
export interface Attributes {
  // Elementwise, with numpy broadcasting where there are two inputs.
  Add: None;
  Sub: None;
  Mul: None;
  Div: None;
  Neg: None;
  Exp: None;
  Log: None;
  Sqrt: None;
  Sin: None;
  Cos: None;
  Sigmoid: None;
  Tanh: None;
  Relu: None;
  Silu: None;
  Gelu: None;
  GeluTanh: None;
  QuickGelu: None;
  Erf: None;
  Cast: { to: "float32" | "float16" | "int64" | "int32" | "bool" };
  Greater: None;
  Where: None;
  StopGradient: None;
  // The first input, not before the others exist: recomputation in the backward pass.
  After: None;
  // Reductions.
  ReduceSum: { axes: readonly number[]; keepDims: boolean };
  ReduceMean: { axes: readonly number[]; keepDims: boolean };
  Softmax: None;
  // Shape.
  Reshape: { shape: readonly number[] };
  Transpose: { permutation: readonly number[] };
  Concat: { axis: number };
  Slice: { axis: number; start: number; end: number };
  Pad: { axis: number; before: number; after: number };
  Expand: { shape: readonly number[] };
  Gather: None;
  ScatterSum: { rows: number };
  // Matrix products.
  MatMul: { transposeA: boolean; transposeB: boolean };
  Linear: None;
  Geglu: None;
  Swiglu: None;
  // Convolution.
  Conv: ConvolutionAttributes;
  ConvInputGradient: ConvolutionAttributes & { inputShape: readonly number[] };
  ConvWeightGradient: ConvolutionAttributes & { weightShape: readonly number[] };
  UpsampleNearest: { scale: number };
  SumPool: { scale: number };
  // Normalization and attention.
  GroupNorm: { groups: number; epsilon: number };
  LayerNorm: { epsilon: number };
  RmsNorm: { epsilon: number };
  Attention: AttentionAttributes;
  AttentionGradient: AttentionAttributes;
  Rotary: RotaryAttributes;
}

type None = Record<never, never>;

/** Strides and zero padding of a 2-D convolution. */
export interface ConvolutionAttributes {
  stride: number;
  /** Zero padding as top, left, bottom, right. */
  padding: readonly [number, number, number, number];
}

/** Multi-head attention over `[B, S, heads·D]`. */
export interface AttentionAttributes {
  heads: number;
  scale: number;
  /** Each token sees itself and earlier ones only. */
  causal: boolean;
}

/** Rotation of the pairs of features of each head, over `[B, S, heads·D]`. */
export interface RotaryAttributes {
  heads: number;
  pairs: RotaryPairs;
}

/** Which features of a head are a pair: 2i and 2i + 1, or i and i + D/2. */
export type RotaryPairs = "adjacent" | "halves";

export type OperatorName = keyof Attributes;
