// Training with the state on the device, here in the worker's memory: the same graph that GPUs run.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import { readSafetensors } from "../storage/index.js";
import "../storage/node.js";
import "../runtime/node.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { AdamW } from "./optimizers/adamw.js";
import { createOptimizer, type OptimizerName } from "./optimizers/create-optimizer.js";

const STEPS = 8;
const LOSS_TOLERANCE = 1e-5;
const TRAINED_TOLERANCE = 2e-3;
/** Between float32 and float64 arithmetic in the same formula, over a few steps. */
const SAME_FORMULA_TOLERANCE = 1e-5;
const REFERENCE = "test/reference/unet-sd15";
const shape = { batchSize: 1, height: 8, width: 8, tokens: 5 };

let unet: UNet2DConditionModel;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained(REFERENCE, { subfolder: "unet" });
});
afterAll(() => unet.release());

async function initial(): Promise<FeRAModel> {
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters(`${REFERENCE}/adapters_initial.safetensors`);
  return fera;
}

function batchOf(seed: number) {
  const generator = new Generator(seed);
  return {
    latents: randn([1, 4, 8, 8], { generator }),
    timesteps: tensor([300], undefined, "int64"),
    encoderHiddenStates: randn([1, 5, 24], { generator }),
    target: randn([1, 4, 8, 8], { generator }),
  };
}

/** All float32 values; an optimizer's step count would outweigh its moments. */
const flattened = (state: ReadonlyMap<string, Tensor>): number[] =>
  [...state]
    .filter(({ 1: { dtype } }) => dtype === "float32")
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, { data }]) => Array.from(data, Number));
const errorBetween = (a: ReadonlyMap<string, Tensor>, b: ReadonlyMap<string, Tensor>) =>
  relativeError(flattened(a), flattened(b));

/** A model with its optimizer and its step, the state on the device or in main memory. */
async function training(
  stateOnDevice: boolean,
  gradientClip?: number,
  name: OptimizerName = "adamw",
  rateOf?: (name: string) => number,
) {
  const fera = await initial();
  const optimizer = createOptimizer(name, { lr: 1e-2, weightDecay: 0.1 });
  const step = await fera.compileTrainStep({ ...shape, optimizer, gradientClip, rateOf, stateOnDevice });
  return { fera, optimizer, step };
}

describe("a training step whose state stays on the device", () => {
  it("agrees with the reference over eight steps", async () => {
    const { tensors, metadata } = await readSafetensors(`${REFERENCE}/expected.safetensors`);
    const given = (key: string): Tensor => tensors.get(key)!;
    const { lr, betas, eps, weight_decay: weightDecay } = JSON.parse(metadata.optimizer!);
    const fera = await initial();
    const [batchSize, , height, width] = given("latents").shape as [number, number, number, number];
    const tokens = given("encoder_hidden_states").shape[1]!;
    const optimizer = new AdamW({ lr, betas, eps, weightDecay });
    const step = await fera.compileTrainStep({ batchSize, height, width, tokens, optimizer, stateOnDevice: true });
    const losses = given("training.losses").data as Float32Array;
    for (let i = 0; i < STEPS; i++) {
      const { loss } = await step.run({
        latents: given("latents"),
        timesteps: given("timesteps"),
        encoderHiddenStates: given("encoder_hidden_states"),
        target: given("target"),
      });
      expect(Math.abs(loss - losses[3 * i]!) / losses[3 * i]!).toBeLessThan(LOSS_TOLERANCE);
    }
    const trained = await readSafetensors(`${REFERENCE}/adapters_trained.safetensors`);
    expect(errorBetween(fera.stateDict(), trained.tensors)).toBeLessThan(TRAINED_TOLERANCE);
    await step.release();
  });

  for (const [name, clip] of [["adamw"], ["adamw", 0.01], ["lion", 0.01], ["schedule-free"]] as [
    OptimizerName,
    number?,
  ][]) {
    it(`does what ${name} in main memory does, clipped at ${clip ?? "nothing"}`, async () => {
      const [device, host] = [await training(true, clip, name), await training(false, clip, name)];
      for (let i = 0; i < STEPS; i++) {
        const [a, b] = [await device.step.run(batchOf(i)), await host.step.run(batchOf(i))];
        expect(Math.abs(a.loss - b.loss) / b.loss).toBeLessThan(SAME_FORMULA_TOLERANCE);
      }
      expect(device.optimizer.stepCount).toBe(STEPS);
      expect(errorBetween(device.fera.stateDict(), host.fera.stateDict())).toBeLessThan(SAME_FORMULA_TOLERANCE);
      expect(errorBetween(device.optimizer.stateDict(), host.optimizer.stateDict())).toBeLessThan(
        SAME_FORMULA_TOLERANCE,
      );
      const [a, b] = [await device.step.gradients(batchOf(9)), await host.step.gradients(batchOf(9))];
      expect(errorBetween(a.gradients, b.gradients)).toBeLessThan(1e-4);
      for (const { step } of [device, host]) await step.release();
    });
  }

  it("gives parts learning rates of their own, and leaves alone what has none, as in main memory", async () => {
    const rateOf = (name: string) => (name.startsWith("router") ? 0 : name.endsWith("up") ? 3 : 1);
    const [device, host] = [await training(true, 0.01, "adamw", rateOf), await training(false, 0.01, "adamw", rateOf)];
    const before = new Map([...host.fera.parameters].map(([name, { data }]) => [name, data.slice()]));
    for (let i = 0; i < 4; i++) for (const { step } of [device, host]) await step.run(batchOf(i));
    expect(errorBetween(device.fera.stateDict(), host.fera.stateDict())).toBeLessThan(SAME_FORMULA_TOLERANCE);
    for (const { fera } of [device, host]) {
      for (const [name, { data }] of fera.parameters) {
        if (rateOf(name) === 0) expect(data, name).toEqual(before.get(name));
        else expect(data, name).not.toEqual(before.get(name));
      }
    }
    for (const { step } of [device, host]) await step.release();
  });

  it("is refused by name for optimizers without a graph form", async () => {
    for (const name of ["adamw-8bit", "adafactor", "prodigy", "muon"] as const) {
      await expect(training(true, undefined, name)).rejects.toThrow(
        /stateOnDevice needs an optimizer with a graph form \(AdamW, Lion, ScheduleFreeAdamW\); got \w+\. Leave/,
      );
    }
  });

  it("shows current values to whatever asks, and takes up what is changed there", async () => {
    const { fera, optimizer, step } = await training(true);
    const undisturbed = await training(true);
    for (let i = 0; i < 3; i++) {
      const before = fera.stateDict();
      await step.run(batchOf(i));
      await undisturbed.step.run(batchOf(i));
      expect(errorBetween(fera.stateDict(), before)).toBeGreaterThan(0);
      await fera.predict(batchOf(i));
      await step.evaluate(batchOf(i));
      optimizer.loadStateDict(optimizer.stateDict());
    }
    expect(fera.stateDict()).toEqual(undisturbed.fera.stateDict());
    expect(optimizer.stateDict()).toEqual(undisturbed.optimizer.stateDict());

    await step.run(batchOf(4));
    fera.loadStateDict((await initial()).stateDict());
    const fresh = await (await training(false)).step.compute(batchOf(5));
    expect((await step.compute(batchOf(5))).losses.loss).toBeCloseTo(fresh.losses.loss, 5);
    // A second step over the same adapters and optimizer goes on where the first one is.
    await step.run(batchOf(6));
    const second = await fera.compileTrainStep({ ...shape, optimizer, stateOnDevice: true });
    expect((await second.compute(batchOf(6))).losses.loss).toBe((await step.compute(batchOf(6))).losses.loss);
    await second.run(batchOf(6));
    expect(optimizer.stepCount).toBe(6);
    for (const compiled of [step, second, undisturbed.step]) await compiled.release();
  });

  it("keeps the state where the loss is not finite, and once it is released", async () => {
    const { fera, optimizer, step } = await training(true);
    await step.run(batchOf(1));
    const [adapters, moments] = [fera.stateDict(), optimizer.stateDict()];
    const bad = batchOf(2);
    bad.target.data[3] = Number.POSITIVE_INFINITY;
    await expect(step.run(bad)).rejects.toThrow(/the loss is (NaN|Infinity)/);
    expect(fera.stateDict()).toEqual(adapters);
    expect(optimizer.stateDict()).toEqual(moments);
    const [first] = await Promise.all([step.run(batchOf(3)), step.run(batchOf(4))]);
    expect(first.loss).toBeGreaterThan(0);
    expect(optimizer.stepCount).toBe(3);
    await step.release();
    expect(errorBetween(fera.stateDict(), adapters)).toBeGreaterThan(0);
  });

  it("is refused without an optimizer", async () => {
    const fera = await initial();
    await expect(fera.compileTrainStep({ ...shape, stateOnDevice: true })).rejects.toThrow(/needs an optimizer/);
  });
});
