// FeRA's own router: a small network from band energies to gates.

import type { FeRAConfig } from "../fera-config.js";
import type { Router } from "./router.js";
import { initialNetwork, networkShapes, softmaxNetwork } from "./router-network.js";

/** w = softmax((W2 relu(W1 e + b1) + b2) / tau). @see arXiv:2511.17979 */
export const energyRouter = ({ numBands, numExperts, routerTau }: FeRAConfig): Router => ({
  shapes: networkShapes(numBands, numExperts),
  initialize: (generator) => initialNetwork(numBands, numExperts, generator),
  gates: ({ energies }, parameters) => softmaxNetwork(energies, parameters, routerTau),
});
