export { attention, attentionGradient } from "./attention.js";
export {
  type ConvolutionOptions,
  conv,
  convInputGradient,
  convWeightGradient,
  sumPool,
  upsampleNearest,
} from "./convolution.js";
export {
  add,
  cast,
  cos,
  div,
  erf,
  exp,
  gelu,
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
export { type FileRange, Graph, type Node, Value, type ValueSource } from "./graph.js";
export { geglu, linear, matMul } from "./matrix.js";
export { groupNorm, layerNorm, type Normalized } from "./normalization.js";
export { operationCount, operationsOf, reachableNodes } from "./operation-count.js";
export type { AttentionAttributes, Attributes, ConvolutionAttributes, OperatorName } from "./operators.js";
export { reduceMean, reduceSum, softmax } from "./reduction.js";
export { after, concat, expand, gather, pad, reshape, scatterSum, slice, transpose } from "./shape-operators.js";
export { broadcastShapes, sameShape } from "./shapes.js";
