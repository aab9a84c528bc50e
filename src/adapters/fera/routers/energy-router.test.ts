import { expect, it } from "vitest";
import { checkGradients } from "../../../../test/support/check-gradients.js";
import { relativeError } from "../../../../test/support/relative-error.js";
import { ENERGIES, gatesByHand, gatesCase, networkOf, stateOf } from "../../../../test/support/router-network.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";

const config = new FeRAConfig({ numExperts: 4, numBands: 3, routerTau: 0.5 });

it("softmax((W2 relu(W1 e + b1) + b2) / tau) of the energies; each row sums to 1", async () => {
  const network = networkOf(config);
  const gates = await adapterGates({ config, state: stateOf(network) }, { energies: ENERGIES });
  expect(gates.shape).toEqual([2, 4]);
  expect(relativeError(gates.data, gatesByHand(network, ENERGIES, config.routerTau))).toBeLessThan(1e-5);
  for (const row of [0, 1]) {
    expect(gates.data.slice(4 * row, 4 * row + 4).reduce((sum, gate) => sum + gate)).toBeCloseTo(1, 6);
  }
});

it("the gradient of its parameters and of the energies agrees with finite differences", async () => {
  const { of, build } = gatesCase(config);
  await checkGradients({ inputs: of(["net.2"]), fixed: of(["net.0", "energies"]), build });
  // The gates hardly move with the first layer, so that it takes a larger step to see it in float32.
  await checkGradients({ inputs: of(["net.0", "energies"]), fixed: of(["net.2"]), build, step: 0.05 });
});
