import { describe, expect, it } from "vitest";
import { goldenCases } from "../../../test/support/golden-cases.js";
import { relativeError } from "../../../test/support/relative-error.js";
import "../../runtime/node.js";
import { readSafetensors } from "../../storage/index.js";
import { zeros } from "../../tensor/tensor.js";
import { SoftFrequencyRouter } from "./soft-frequency-router.js";

const ROUTER_TOLERANCE = 1e-5;

describe("SoftFrequencyRouter", () => {
  it("agrees with the reference", async () => {
    const { tensors, metadata } = await readSafetensors("test/reference/router.safetensors");
    for (const { name, settings } of goldenCases(metadata, 3)) {
      const { num_bands: numBands, num_experts: numExperts, tau } = settings;
      const own = [...tensors].filter(([key]) => key.startsWith(`${name}.`));
      const state = new Map(own.map(([key, value]) => [key.slice(name.length + 1), value]));
      const router = new SoftFrequencyRouter({ numBands, numExperts, tau, state });
      const weights = await router.compute(state.get("energies")!);
      const error = relativeError(weights.data, state.get("weights")!.data as Float32Array);
      expect(error, name).toBeLessThan(ROUTER_TOLERANCE);
      await router.release();
    }
  });

  it("starts as torch's linear layers do, the same for the same seed", async () => {
    const router = new SoftFrequencyRouter({ numBands: 4, numExperts: 5, seed: 3 });
    const values = router.parameters.get("net.0.weight")!.data;
    expect(Math.max(...values)).toBeLessThanOrEqual(0.5);
    expect(Math.max(...values)).toBeGreaterThan(0.45);
    expect(Math.max(...router.parameters.get("net.2.weight")!.data)).toBeLessThanOrEqual(0.125);
    expect(new SoftFrequencyRouter({ numBands: 4, numExperts: 5, seed: 3 }).parameters).toEqual(router.parameters);
    const weights = await router.compute(zeros([2, 4]));
    expect(weights.shape).toEqual([2, 5]);
    expect(weights.data.slice(0, 5).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
  });

  it("refuses a state or energies of another shape", async () => {
    const { parameters } = new SoftFrequencyRouter({ numBands: 4 });
    expect(() => new SoftFrequencyRouter({ numBands: 3, state: parameters })).toThrow(
      /net.0.weight.*\[64,3\].*\[64,4\]/,
    );
    expect(() => new SoftFrequencyRouter({ state: new Map() })).toThrow(/net.0.weight" is missing/);
    await expect(new SoftFrequencyRouter().compute(zeros([2, 4]))).rejects.toThrow(/must be \[B, 3\]/);
  });
});
