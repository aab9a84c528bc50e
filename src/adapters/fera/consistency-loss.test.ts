import { describe, expect, it } from "vitest";
import { checkGradients } from "../../../test/support/check-gradients.js";
import { goldenCases } from "../../../test/support/golden-cases.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import { tensor, zeros } from "../../tensor/tensor.js";
import { feclLoss, frequencyEnergyConsistencyLoss } from "./consistency-loss.js";

const LOSS_TOLERANCE = 1e-3;
const GRADIENT_TOLERANCE = 2e-3;

describe("frequencyEnergyConsistencyLoss", () => {
  it("agrees with the reference, loss and gradient", async () => {
    const { tensors, metadata } = await readSafetensors("test/reference/consistency_loss.safetensors");
    for (const { name, settings } of goldenCases(metadata, 4)) {
      const { num_bands: numBands, fecl_weight: feclWeight } = settings;
      const [base, fera, target] = ["base", "fera", "target"].map((key) => tensors.get(`${name}.${key}`)!);
      const config = { numBands, feclWeight };
      const result = await frequencyEnergyConsistencyLoss({ base: base!, fera: fera!, target: target!, config });
      const loss = (tensors.get(`${name}.loss`)!.data as Float32Array)[0]!;
      const gradient = tensors.get(`${name}.grad.fera`)!.data as Float32Array;
      expect(Math.abs(result.loss - loss) / Math.abs(loss), `${name} loss`).toBeLessThan(LOSS_TOLERANCE);
      expect(relativeError(result.gradient.data, gradient), `${name} gradient`).toBeLessThan(GRADIENT_TOLERANCE);
    }
  });

  it("stays finite where nothing has changed and nothing is wrong", async () => {
    const zero = zeros([1, 4, 8, 8]);
    const { loss, gradient } = await frequencyEnergyConsistencyLoss({ base: zero, fera: zero, target: zero });
    expect(loss).toBe(0);
    expect(gradient.data.every((value) => value === 0)).toBe(true);
  });

  for (const bands of ["reference", "complete"] as const) {
    it(`has the gradient that finite differences show (${bands} bands)`, async () => {
      const options = { numBands: 3, bands, sigma: { rule: "latent", divisor: 8 } } as const;
      await checkGradients({
        inputs: { base: [2, 2, 6, 6], fera: [2, 2, 6, 6], target: [2, 2, 6, 6] },
        build: ({ base, fera, target }) => feclLoss(base!, fera!, target!, options),
      });
    });
  }

  it("has the gradient that finite differences show, masked and weighted", async () => {
    const options = { numBands: 3, bands: "complete", sigma: { rule: "latent", divisor: 8 } } as const;
    const mask = Array.from({ length: 72 }, (_, i) => [1, 0.5, 0][i % 3]!);
    await checkGradients({
      inputs: { base: [2, 2, 6, 6], fera: [2, 2, 6, 6], target: [2, 2, 6, 6] },
      fixed: { lossMask: tensor(mask, [2, 1, 6, 6]), lossWeights: tensor([0.5, 2], [2]) },
      build: ({ base, fera, target, ...weighting }) => feclLoss(base!, fera!, target!, options, weighting),
    });
  });

  it("refuses tensors of different shapes", async () => {
    const inputs = { base: zeros([1, 4, 8, 8]), fera: zeros([1, 4, 8, 8]), target: zeros([1, 4, 8, 6]) };
    await expect(frequencyEnergyConsistencyLoss(inputs)).rejects.toThrow(/one shape; got .*\[1,4,8,6\]/);
  });
});
