export { attentionGradient } from "./attention.js";
export { convInputGradient, convWeightGradient } from "./convolution.js";
export {
  canTakeRows,
  type FileRange,
  Graph,
  type Int8Matrices,
  NF4_BLOCK,
  NF4_LEVELS,
  type Nf4Blocks,
  type Node,
  type OutputType,
  type StoredType,
  Value,
  type ValueSource,
} from "./graph.js";
export { operationsOf, reachableNodes } from "./node-cost.js";
export * from "./operator-functions.js";
export type {
  AttentionAttributes,
  Attributes,
  ConvolutionAttributes,
  OperatorName,
  RotaryAttributes,
  RotaryPairs,
} from "./operators.js";
export { after } from "./shape-operators.js";
export { broadcastShapes, sameShape } from "./shapes.js";
