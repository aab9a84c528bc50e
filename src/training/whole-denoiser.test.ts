import { afterAll, beforeAll, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../models/index.js";
import "../runtime/node.js";
import "../storage/node.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { WholeDenoiser } from "./whole-denoiser.js";

let unet: UNet2DConditionModel;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
});
afterAll(() => unet.release());

const generator = new Generator(8);
const inputs = {
  latents: randn([2, 4, 8, 8], { generator }),
  timesteps: tensor([40, 870], [2], "int64"),
  encoderHiddenStates: randn([2, 5, 24], { generator }),
};
const batch = { ...inputs, target: randn([2, 4, 8, 8], { generator }) };

it("every weight has the gradient that finite differences show, and trained weights act once they are applied", async () => {
  const whole = await WholeDenoiser.of(unet);
  expect(whole.parameterCount).toBe(
    [...unet.weights.weights.values()].reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0),
  );
  const before = await unet.predict(inputs);
  const step = await whole.compileTrainStep({ batchSize: 2, latentHeight: 8, latentWidth: 8, tokens: 5 });
  const { losses, gradients } = await step.compute(batch);
  const mse = before.data.reduce((sum, value, i) => sum + (value - batch.target.data[i]!) ** 2, 0) / before.size;
  expect(losses.loss / mse).toBeCloseTo(1, 4);
  expect(gradients.size).toBe(whole.parameters.size);
  const norm = Math.hypot(...[...gradients.values()].map((gradient) => Math.hypot(...gradient)));
  const move = (distance: number) => {
    for (const [name, gradient] of gradients) {
      const { data } = whole.parameters.get(name)!;
      for (let i = 0; i < data.length; i++) data[i]! += (distance * gradient[i]!) / norm;
    }
  };
  const h = 0.01;
  move(h);
  const { loss: above } = await step.evaluate(batch);
  move(-2 * h);
  const { loss: below } = await step.evaluate(batch);
  expect((above - below) / (2 * h) / norm).toBeCloseTo(1, 1);

  expect((await unet.predict(inputs)).data).toEqual(before.data);
  await whole.apply();
  const after = await unet.predict(inputs);
  expect(relativeError(after.data, before.data)).toBeGreaterThan(1e-5);
  const lower = after.data.reduce((sum, value, i) => sum + (value - batch.target.data[i]!) ** 2, 0) / after.size;
  expect(lower / below).toBeCloseTo(1, 4);
  await step.release();
});
