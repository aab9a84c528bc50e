import { expect, it } from "vitest";
import { checkGradients } from "../../../../test/support/check-gradients.js";
import { relativeError } from "../../../../test/support/relative-error.js";
import { ENERGIES, gatesCase, stateOf } from "../../../../test/support/router-network.js";
import { Generator } from "../../../tensor/random.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";
import { createRouter } from "./index.js";

const config = new FeRAConfig({ numExperts: 3, numBands: 3, routerTau: 0.5, router: "from-energies" });

it("its gates begin as the energies", async () => {
  const fresh = createRouter(config).initialize(new Generator(1));
  expect(fresh.get("net.0.weight")!.data.some((value) => value !== 0)).toBe(true);
  const gates = await adapterGates({ config, state: stateOf(fresh) }, { energies: ENERGIES });
  expect(relativeError(gates.data, [...ENERGIES.data])).toBeLessThan(1e-5);
});

it("a bias of the last layer multiplies a gate, and each row sums to 1", async () => {
  const state = createRouter(config).initialize(new Generator(1));
  state.get("net.2.bias")!.data.set([0, config.routerTau * Math.log(3), 0]);
  const gates = await adapterGates({ config, state: stateOf(state) }, { energies: ENERGIES });
  const expected = [0, 1].flatMap((row) => {
    const [a, b, c] = [...ENERGIES.data.slice(3 * row, 3 * row + 3)] as [number, number, number];
    const total = a + 3 * b + c;
    return [a / total, (3 * b) / total, c / total];
  });
  expect(relativeError(gates.data, expected)).toBeLessThan(1e-5);
});

it("the gradient of its parameters and of the energies agrees with finite differences", async () => {
  const { of, build } = gatesCase(config);
  await checkGradients({ inputs: of(["net.2"]), fixed: of(["net.0", "energies"]), build });
  await checkGradients({ inputs: of(["energies"]), fixed: of(["net"]), build, step: 5e-3 });
});

it("another number of experts than bands is refused", () => {
  expect(() => createRouter(config.with({ numExperts: 4 }))).toThrow(
    /"from-energies": numExperts must equal numBands; got 4 experts and 3 bands/,
  );
});
