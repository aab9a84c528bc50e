// FeRA's network on what the energies tell beyond the timestep: it sees the image, and not the clock.

import { ConfigError } from "../../../errors.js";
import type { Value } from "../../../graph/index.js";
import * as ops from "../../../graph/index.js";
import { tensor, zeros } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";
import { SMALLEST_ENERGY } from "./from-energies-router.js";
import type { Router, RouterInputs } from "./router.js";
import { initialNetwork, networkShapes, softmaxNetwork } from "./router-network.js";
import { timestepFeatures } from "./timestep-router.js";

/** Cosines that what is expected of a band is made of, beside a constant. */
const COSINES = 8;
/** Optimizers of the Adam family move by their rate whatever a loss's scale; this one must not fill the clipped norm. */
const WEIGHT = 0.01;

/**
 * w = softmax((W2 relu(W1 f + b1) + b2) / tau) of f_k = (log(e_k + 1e-6) − m_k(t)) / s_k(t).
 *
 * m_k(t) and log s_k²(t) are linear in 1 and cos(π j t / T), j = 1 … 8, with coefficients `expected.weight [2K, 9]`, first the
 * means. They are fitted as a normal distribution of log e given t, by its negative log likelihood,
 * 0.01 · mean of ½ (f² + log s²), the loss "expectation"; the gates' gradient does not reach them.
 */
export function relativeEnergiesRouter({ numBands, numExperts, routerTau }: FeRAConfig): Router {
  const standardized = ({ energies, timesteps }: RouterInputs, parameters: ReadonlyMap<string, Value>) => {
    if (!timesteps) throw new ConfigError('router "relative-energies": needs the timesteps; give them to route() too.');
    const { graph } = energies;
    const one = graph.constant(tensor([1], [1, 1]));
    const ones = ops.expand(one, [timesteps.shape[0]!, 1]);
    const features = ops.concat([ones, timestepFeatures(timesteps, COSINES)], 1);
    const expected = ops.linear(features, parameters.get("expected.weight")!);
    const mean = ops.slice(expected, 1, 0, numBands);
    const logVariance = ops.slice(expected, 1, numBands, 2 * numBands);
    const difference = ops.sub(ops.log(ops.add(energies, SMALLEST_ENERGY)), mean);
    return { relative: ops.div(difference, ops.exp(ops.mul(logVariance, 0.5))), logVariance };
  };
  return {
    shapes: new Map<string, readonly number[]>([
      ...networkShapes(numBands, numExperts),
      ["expected.weight", [2 * numBands, 1 + COSINES]],
    ]),
    takesTimesteps: true,
    initialize: (generator) =>
      initialNetwork(numBands, numExperts, generator).set("expected.weight", zeros([2 * numBands, 1 + COSINES])),
    gates: (inputs, parameters) =>
      softmaxNetwork(ops.stopGradient(standardized(inputs, parameters).relative), parameters, routerTau),
    ownLoss: {
      name: "expectation",
      value(inputs, parameters) {
        const { relative, logVariance } = standardized(inputs, parameters);
        return ops.mul(ops.reduceMean(ops.add(ops.mul(relative, relative), logVariance)), WEIGHT / 2);
      },
    },
  };
}
