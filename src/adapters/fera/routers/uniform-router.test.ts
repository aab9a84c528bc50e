import { expect, it } from "vitest";
import { ENERGIES } from "../../../../test/support/router-network.js";
import { FeRAConfig } from "../fera-config.js";
import { adapterGates } from "../soft-frequency-router.js";
import { createRouter } from "./index.js";

it("its gates are 1/E in every row, and it has no parameters", async () => {
  const config = new FeRAConfig({ numExperts: 4, numBands: 3, router: "uniform" });
  expect(createRouter(config).shapes.size).toBe(0);
  const gates = await adapterGates({ config, state: new Map() }, { energies: ENERGIES });
  expect(gates.shape).toEqual([2, 4]);
  expect([...gates.data]).toEqual(new Array(8).fill(0.25));
});
