import { expect, it } from "vitest";
import { checkGradients } from "../../../../test/support/check-gradients.js";
import { relativeError } from "../../../../test/support/relative-error.js";
import { ENERGIES, gatesByHand, networkOf, stateOf } from "../../../../test/support/router-network.js";
import { tensor } from "../../../tensor/tensor.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";
import { createRouter } from "./index.js";

const config = new FeRAConfig({ numExperts: 4, numBands: 3, routerTau: 0.5, router: "timestep" });
const TIMES = [20, 730];
const timesteps = tensor(Float32Array.from(TIMES), [2]);

it("the same network on cos(π k t / 1000), k = 1 … K, whatever the energies; each row sums to 1", async () => {
  const network = networkOf(config);
  const features = TIMES.flatMap((t) => [1, 2, 3].map((k) => Math.cos((Math.PI * k * t) / 1000)));
  const expected = gatesByHand(network, tensor(Float32Array.from(features), [2, 3]), config.routerTau);
  const gates = await adapterGates({ config, state: stateOf(network) }, { energies: ENERGIES, timesteps });
  expect(relativeError(gates.data, expected)).toBeLessThan(1e-5);
  for (const row of [0, 1]) {
    expect(gates.data.slice(4 * row, 4 * row + 4).reduce((sum, gate) => sum + gate)).toBeCloseTo(1, 6);
  }
  const zero = tensor(new Float32Array(6), [2, 3]);
  const others = await adapterGates({ config, state: stateOf(network) }, { energies: zero, timesteps });
  expect(others.data).toEqual(gates.data);
});

it("the gradient of its parameters agrees with finite differences", () =>
  checkGradients({
    inputs: Object.fromEntries(networkOf(config)),
    fixed: { energies: ENERGIES, timesteps },
    build: ({ energies, timesteps, ...parameters }) =>
      createRouter(config).gates({ energies: energies!, timesteps }, new Map(Object.entries(parameters))),
  }));

it("without timesteps says what is missing", async () => {
  const adapter = { config, state: stateOf(networkOf(config)) };
  await expect(adapterGates(adapter, { energies: ENERGIES })).rejects.toThrow(
    /"timestep": needs the timesteps.*route\(\)/,
  );
});
