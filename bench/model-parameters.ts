// What a model asks its weights for: for writing random ones, and for counting without any.

import type { Denoiser } from "../src/diffusion/index.js";
import { Graph, type Value } from "../src/graph/index.js";
import { type Initializer, ModelWeights, type ParameterSource, Scope } from "../src/nn/index.js";
import { sizeOf } from "../src/tensor/tensor.js";

/** Of a checkpoint. */
export interface Parameter {
  name: string;
  shape: readonly number[];
  initializer: Initializer;
}

/** For a model that is asked what it needs. */
export const NO_WEIGHTS = new ModelWeights(new Map(), "no weights");

/** What the model asks for, in the order in which it asks. */
export function parametersOf(model: Denoiser): Parameter[] {
  const parameters = new Map<string, Parameter>();
  const recorder: ParameterSource = {
    parameter(graph, name, shape, initializer): Value {
      if (!parameters.has(name)) parameters.set(name, { name, shape, initializer });
      return graph.file(name, "float32", shape, nowhere(shape));
    },
  };
  const graph = new Graph();
  model.build(new Scope(graph, recorder), model.declareInputs(graph, model.smallestShape));
  return [...parameters.values()];
}

/** Where a weight would lie that is never read. */
export const nowhere = (shape: readonly number[]) => ({ path: "/weights", offset: 0, length: 4 * sizeOf(shape) });
