// A UNet that can be built, not run: its weights are shapes alone. For what is to be known of a graph.

import type { Denoiser } from "../../diffusion/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { ModelWeights, type ParameterSource, Scope, type Weight } from "../../nn/index.js";
import { sizeOf } from "../../tensor/tensor.js";
import { UNet2DConditionModel } from "./unet-2d-condition.js";
import { parseUNetConfig } from "./unet-config.js";

/** @param config - In diffusers' keys. */
export function weightlessUNet(config: object): Denoiser {
  const parsed = parseUNetConfig(config, "weightlessUNet");
  const weights = new Map<string, Weight>();
  const range = (shape: readonly number[]) => ({ path: "/weights", offset: 0, length: 4 * sizeOf(shape) });
  const recorder: ParameterSource = {
    parameter(graph, path, shape): Value {
      weights.set(path, { shape, dtype: "float32", range: range(shape) });
      return graph.file(path, "float32", shape, range(shape));
    },
  };
  const model = new UNet2DConditionModel(parsed, new ModelWeights(weights, "weightlessUNet"));
  const graph = new Graph();
  model.build(new Scope(graph, recorder), model.declareInputs(graph, model.smallestShape));
  return model;
}
