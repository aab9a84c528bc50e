// Steps in float16 with float32 adapters, on the CPU's provider, which rounds to float16 between nodes: gradients really
// overflow there.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { referenceBatch } from "../../test/support/reference-batch.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import type { TrainStepOptions } from "../adapters/train-step-options.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import "../runtime/node.js";
import "../storage/node.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { LossScale } from "./loss-scale.js";
import { AdamW } from "./optimizers/adamw.js";

const REFERENCE = "test/reference/unet-sd15";
let unet: UNet2DConditionModel;
let batch: Awaited<ReturnType<typeof referenceBatch>>;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained(REFERENCE, { subfolder: "unet" });
  batch = await referenceBatch(REFERENCE);
});
afterAll(() => unet.release());

async function stepOf(options: Partial<TrainStepOptions>) {
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters(`${REFERENCE}/adapters_initial.safetensors`);
  const [batchSize, , height, width] = batch.latents.shape as [number, number, number, number];
  const tokens = batch.encoderHiddenStates.shape[1]!;
  const step = await fera.compileTrainStep({ batchSize, height, width, tokens, optimizer: new AdamW(), ...options });
  return { fera, step };
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (const [i, value] of a.entries()) {
    ab += value * b[i]!;
    aa += value ** 2;
    bb += b[i]! ** 2;
  }
  return aa === 0 && bb === 0 ? 1 : ab / Math.sqrt(aa * bb);
}

const values = (parameters: ReadonlyMap<string, Tensor<"float32">>) =>
  Float32Array.from([...parameters.values()].flatMap(({ data }) => [...data]));

describe("a step in mixed precision", () => {
  it("gives the gradients of float32 within float16's rounding, layer by layer", async () => {
    const { step: full } = await stepOf({});
    const { step: half } = await stepOf({ mixedPrecision: "fp16" });
    const [exact, rounded] = [await full.compute(batch), await half.compute(batch)];
    expect(rounded.losses.loss / exact.losses.loss).toBeCloseTo(1, 2);
    expect(rounded.losses.loss).not.toBe(exact.losses.loss);
    for (const [name, gradient] of rounded.gradients) {
      expect(cosine(gradient, exact.gradients.get(name)!), name).toBeGreaterThan(0.99);
    }
    await full.release();
    await half.release();
  });

  for (const stateOnDevice of [false, true]) {
    const where = stateOnDevice ? "on the device" : "in main memory";
    it(`computes again with a smaller factor where gradients overflow, and loses no step (${where})`, async () => {
      const usual = await stepOf({
        mixedPrecision: "fp16",
        stateOnDevice,
        lossScale: new LossScale({ initial: 2 ** 10 }),
      });
      const lossScale = new LossScale({ initial: 2 ** 24, growthInterval: 2 });
      const { fera, step } = await stepOf({ mixedPrecision: "fp16", stateOnDevice, lossScale });
      const before = values(fera.parameters);
      // 2²⁴ times such a gradient is more than float16 holds.
      const far = {
        ...batch,
        target: tensor(
          (batch.target.data as Float32Array).map((value) => 100 * value),
          batch.target.shape,
        ),
      };
      await usual.step.run(far);
      await step.run(far);
      const found = lossScale.value;
      expect(found).toBeLessThan(2 ** 24);
      expect(found).toBeGreaterThan(1);
      expect(lossScale.state().steps).toBe(1);
      const changes = (parameters: typeof fera.parameters) => values(parameters).map((value, i) => value - before[i]!);
      expect(cosine(changes(fera.parameters), changes(usual.fera.parameters))).toBeGreaterThan(0.99);
      await step.run(far);
      expect(lossScale.state()).toEqual({ scale: 2 * found, steps: 0 });
      await step.run(far);
      // It holds now, or is too large again.
      expect([found, 2 * found]).toContain(lossScale.value);
      await usual.step.release();
      await step.release();
    });
  }

  it("names what is not finite by itself, and changes nothing", async () => {
    const lossScale = new LossScale({ initial: 4 });
    const { fera, step } = await stepOf({ mixedPrecision: "fp16", lossScale });
    const before = values(fera.parameters);
    const latents = tensor(new Float32Array(batch.latents.size).fill(Number.NaN), batch.latents.shape);
    await expect(step.run({ ...batch, latents })).rejects.toThrow(/the loss is NaN/);
    expect(values(fera.parameters)).toEqual(before);
    expect(lossScale.value).toBe(4);
    await step.release();
  });
});
