export {
  type Conv2dOptions,
  conv2d,
  embedding,
  groupNorm,
  layerNorm,
  linear,
  rmsNorm,
  sinusoidalEmbedding,
} from "./layers.js";
export { draw, FreshParameters, ModelWeights, TrainableParameters, type Weight } from "./parameters.js";
export {
  type AdaptableLayer,
  type GraphAdapters,
  type Initializer,
  type LayerAdapters,
  type ParameterSource,
  Scope,
} from "./scope.js";
