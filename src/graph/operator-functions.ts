// The functions that add operators to a graph, as the library offers them. Those that only gradients need are not among
// them.

export { attention } from "./attention.js";
export { type ConvolutionOptions, conv, sumPool, upsampleNearest } from "./convolution.js";
export {
  add,
  cast,
  cos,
  div,
  erf,
  exp,
  gelu,
  geluTanh,
  greater,
  log,
  mul,
  neg,
  quickGelu,
  relu,
  sigmoid,
  silu,
  sin,
  sqrt,
  stopGradient,
  sub,
  tanh,
  where,
} from "./elementwise.js";
export { geglu, linear, matMul, splitFeatures, swiglu } from "./matrix.js";
export { groupNorm, layerNorm, type Normalized, rmsNorm } from "./normalization.js";
export { reduceMean, reduceSum, softmax } from "./reduction.js";
export { rotary } from "./rotary.js";
export { concat, expand, gather, pad, reshape, scatterSum, slice, transpose } from "./shape-operators.js";
