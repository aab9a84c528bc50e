// FeRA's network as a correction of the energies: the gates begin as the energies themselves.

import * as ops from "../../../graph/index.js";
import { zeros } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";
import { type Router, requireExpertPerBand } from "./router.js";
import { initialNetwork, networkShapes, softmaxNetwork } from "./router-network.js";

/** Keeps the logarithm of a band without energy finite. */
export const SMALLEST_ENERGY = 1e-6;

/**
 * w = softmax(log(e + 1e-6) + (W2 relu(W1 e + b1) + b2) / tau), so that E = K; W2 and b2 begin at 0, where w = e.
 *
 * The published router begins with gates that hardly depend on e, and every expert with the same share of every image: which
 * of them opens where is then an accident. Here expert k begins as the one of band k.
 *
 * @throws {ConfigError} If there are not as many experts as bands.
 */
export function fromEnergiesRouter(config: FeRAConfig): Router {
  requireExpertPerBand(config);
  const { numBands, numExperts, routerTau } = config;
  return {
    shapes: networkShapes(numBands, numExperts),
    initialize(generator) {
      const network = initialNetwork(numBands, numExperts, generator);
      for (const name of ["net.2.weight", "net.2.bias"]) network.set(name, zeros(network.get(name)!.shape));
      return network;
    },
    gates: ({ energies }, parameters) =>
      softmaxNetwork(energies, parameters, routerTau, ops.log(ops.add(energies, SMALLEST_ENERGY))),
  };
}
