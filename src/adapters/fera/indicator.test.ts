import { describe, expect, it } from "vitest";
import { checkGradients } from "../../../test/support/check-gradients.js";
import { goldenCases } from "../../../test/support/golden-cases.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { zeros } from "../../tensor/tensor.js";
import { bandEnergies, baseSigma, FrequencyEnergyIndicator, frequencyBands } from "./indicator.js";

const INDICATOR_TOLERANCE = 1e-5;

describe("FrequencyEnergyIndicator", () => {
  it("agrees with the reference's energies and bands", async () => {
    const { tensors, metadata } = await readSafetensors("test/reference/indicator.safetensors");
    for (const { name, settings } of goldenCases(metadata, 5)) {
      const { num_bands: numBands, sigmas } = settings;
      const latents = tensors.get(`${name}.latents`)!;
      const [, , height, width] = latents.shape;
      expect(baseSigma({ rule: "reference" }, height!, width!)).toBe(sigmas[0]);
      const indicator = new FrequencyEnergyIndicator({ numBands });
      const { energies, bands } = await indicator.compute(latents);
      const error = relativeError(energies.data, tensors.get(`${name}.energies`)!.data as Float32Array);
      expect(error, name).toBeLessThan(INDICATOR_TOLERANCE);
      bands.forEach((band, k) => {
        const expected = tensors.get(`${name}.band${k}`)!.data as Float32Array;
        expect(relativeError(band.data, expected), `${name} band ${k}`).toBeLessThan(INDICATOR_TOLERANCE);
      });
      await indicator.release();
    }
  });

  for (const numBands of [1, 2, 4]) {
    it(`splits a latent completely into ${numBands} band(s)`, async () => {
      const latents = randn([2, 3, 12, 20], { generator: new Generator(1) });
      const sigma = { rule: "latent", divisor: 8 } as const;
      const indicator = new FrequencyEnergyIndicator({ numBands, bands: "complete", sigma });
      const { bands, energies } = await indicator.compute(latents);
      expect(bands).toHaveLength(numBands);
      const sum = latents.data.map((_, i) => bands.reduce((total, band) => total + band.data[i]!, 0));
      expect(relativeError(sum, latents.data)).toBeLessThan(1e-6);
      for (const row of [0, 1]) {
        const total = energies.data.slice(row * numBands, (row + 1) * numBands).reduce((a, b) => a + b, 0);
        expect(total).toBeCloseTo(1, 5);
      }
      await indicator.release();
    });
  }

  it("blurs by the smaller side over the divisor", async () => {
    expect(baseSigma({ rule: "latent", divisor: 8 }, 32, 48)).toBe(4);
    const latents = randn([1, 4, 32, 32], { generator: new Generator(2) });
    const same = new FrequencyEnergyIndicator({ sigma: { rule: "latent", divisor: 128 } });
    const reference = new FrequencyEnergyIndicator();
    const wide = new FrequencyEnergyIndicator({ sigma: { rule: "latent", divisor: 8 } });
    expect((await same.compute(latents)).energies).toEqual((await reference.compute(latents)).energies);
    // White noise keeps less energy in the low band the more it is blurred.
    const low = async (indicator: FrequencyEnergyIndicator) => {
      const { bands } = await indicator.compute(latents);
      return bands[0]!.data.reduce((sum, value) => sum + value * value, 0);
    };
    expect(await low(wide)).toBeLessThan(0.1 * (await low(reference)));
  });

  it("gives zeros for a latent of zeros", async () => {
    const { energies } = await new FrequencyEnergyIndicator().compute(zeros([1, 4, 8, 8]));
    expect([...energies.data]).toEqual([0, 0, 0]);
  });

  it("refuses what is no latent", async () => {
    await expect(new FrequencyEnergyIndicator().compute(zeros([4, 8, 8]))).rejects.toThrow(/must be \[B, C, H, W\]/);
    expect(() => new FrequencyEnergyIndicator({ numBands: 0 })).toThrow(/numBands/);
  });

  it("is differentiable", async () => {
    const options = { numBands: 3, bands: "reference", sigma: { rule: "latent", divisor: 8 } } as const;
    await checkGradients({ inputs: { z: [2, 2, 6, 5] }, build: ({ z }) => bandEnergies(frequencyBands(z!, options)) });
  });
});
