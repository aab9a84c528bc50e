import { expect, it } from "vitest";
import { ENERGIES } from "../../../../test/support/router-network.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";
import { createRouter } from "./index.js";

it("its gates are the energies, and it has no parameters", async () => {
  const config = new FeRAConfig({ numExperts: 3, numBands: 3, router: "gates-are-energies" });
  expect(createRouter(config).shapes.size).toBe(0);
  const gates = await adapterGates({ config, state: new Map() }, { energies: ENERGIES });
  expect(gates).toEqual(ENERGIES);
});

it("another number of experts than bands is refused", () => {
  const config = new FeRAConfig({ numExperts: 4, numBands: 3, router: "gates-are-energies" });
  expect(() => createRouter(config)).toThrow(/numExperts must equal numBands; got 4 experts and 3 bands/);
});
