// The same network fed the clock instead of the energies: separates what routing by energies adds to the noise level.

import { ConfigError } from "../../../errors.js";
import type { Value } from "../../../graph/index.js";
import * as ops from "../../../graph/index.js";
import { tensor } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";
import type { Router } from "./router.js";
import { initialNetwork, networkShapes, softmaxNetwork } from "./router-network.js";

/** T of the models that are adapted: Stable Diffusion's. Features only need its scale. */
const TIMESTEPS = 1000;

/** K features of a timestep, as many as there are energies: f_k = cos(π k t / T), k = 1 … K. @returns `[B, K]`. */
export function timestepFeatures(timesteps: Value, count: number): Value {
  const rates = Float32Array.from({ length: count }, (_, i) => (Math.PI * (i + 1)) / TIMESTEPS);
  const column = ops.reshape(timesteps, [timesteps.shape[0]!, 1]);
  return ops.cos(ops.mul(column, timesteps.graph.constant(tensor(rates, [1, count]))));
}

/** w = softmax((W2 relu(W1 f(t) + b1) + b2) / tau); as many parameters as the energies' router. */
export const timestepRouter = ({ numBands, numExperts, routerTau }: FeRAConfig): Router => ({
  shapes: networkShapes(numBands, numExperts),
  takesTimesteps: true,
  initialize: (generator) => initialNetwork(numBands, numExperts, generator),
  gates({ timesteps }, parameters) {
    if (!timesteps) throw new ConfigError('router "timestep": needs the timesteps; give them to route() too.');
    return softmaxNetwork(timestepFeatures(timesteps, numBands), parameters, routerTau);
  },
});
