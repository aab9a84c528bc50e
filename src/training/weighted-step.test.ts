// Losses of a training step by sample and by place: weights, masks, FECL with them, and what each sample lost.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import type { TrainStepInputs, TrainStepOptions } from "../adapters/train-step-options.js";
import { createObjective } from "../diffusion/index.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import "../storage/node.js";
import "../runtime/node.js";
import { Generator, randn } from "../tensor/random.js";
import { sliceRows } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { OptimizerStep } from "./optimizer-step.js";
import { AdamW } from "./optimizers/adamw.js";
import type { LossesAndGradients } from "./trainable.js";

const REFERENCE = "test/reference/unet-sd15";
/** Between sums in another order. */
const TOLERANCE = 2e-5;
/** FECL is a square of differences of nearly equal ratios. */
const FECL_TOLERANCE = 2e-3;
const B = 2;

const generator = new Generator(1);
const batch = {
  latents: randn([B, 4, 8, 8], { generator }),
  timesteps: tensor([300, 700], [B], "int64"),
  encoderHiddenStates: randn([B, 5, 24], { generator }),
  target: randn([B, 4, 8, 8], { generator }),
};
const left = tensor(
  Array.from({ length: B * 64 }, (_, i) => (i % 8 < 4 ? 1 : 0)),
  [B, 1, 8, 8],
);

let unet: UNet2DConditionModel;
let fera: FeRAModel;
beforeAll(async () => {
  // Two copies of a graph, so that rows come from both.
  unet = await UNet2DConditionModel.fromPretrained(REFERENCE, { subfolder: "unet", threads: 2 });
  fera = new FeRAModel(unet, FeRAConfig.reference({ feclWeight: 0.5 }));
  await fera.loadAdapters(`${REFERENCE}/adapters_initial.safetensors`);
  // Of what little they change, FECL would show rounding more than anything.
  for (const [name, { data }] of fera.parameters) {
    if (name.endsWith(".up")) for (const [i, value] of data.entries()) data[i] = 50 * value;
  }
});
afterAll(() => unet.release());

async function compute(given: TrainStepInputs, options: Partial<TrainStepOptions> = {}): Promise<LossesAndGradients> {
  const shape = { batchSize: given.latents.shape[0]!, height: 8, width: 8, tokens: 5 };
  const step = await fera.compileTrainStep({ ...shape, ...options });
  try {
    return await step.compute(given);
  } finally {
    await step.release();
  }
}

const rowOf = (row: number) =>
  Object.fromEntries(
    Object.entries(batch).map(([name, value]) => [name, sliceRows(value as Tensor, row, row + 1)]),
  ) as never as TrainStepInputs;
const flat = ({ gradients }: LossesAndGradients) => [...gradients.values()].flatMap((values) => Array.from(values));

describe("a step with weights and masks", () => {
  it("of 1 is the step without, FECL included", async () => {
    const plain = await compute(batch);
    const weighted = await compute(batch, { lossWeights: true, lossMask: true });
    for (const [name, loss] of Object.entries(plain.losses)) {
      expect(weighted.losses[name]).toBeGreaterThan(0);
      expect(Math.abs(weighted.losses[name]! - loss) / loss, name).toBeLessThan(TOLERANCE);
    }
    expect(relativeError(flat(weighted), flat(plain))).toBeLessThan(TOLERANCE);
  });

  it("counts each sample by its weight, in all terms", async () => {
    const [first, second] = [await compute(rowOf(0)), await compute(rowOf(1))];
    const lossWeights = tensor([3, 0.5], [B]);
    const weighted = await compute({ ...batch, lossWeights }, { lossWeights: true });
    for (const name of ["loss", "mse", "fecl"]) {
      const expected = (3 * first.losses[name]! + 0.5 * second.losses[name]!) / 2;
      const tolerance = name === "mse" ? TOLERANCE : FECL_TOLERANCE;
      expect(Math.abs(weighted.losses[name]! - expected) / expected, name).toBeLessThan(tolerance);
    }
    const other = flat(second);
    const expected = flat(first).map((value, i) => (3 * value + 0.5 * other[i]!) / 2);
    expect(relativeError(flat(weighted), expected)).toBeLessThan(FECL_TOLERANCE);
  });

  it("does not see what a mask hides, in any term", async () => {
    const hidden = batch.target.data.map((value, i) => (i % 8 < 4 ? value : 5 - value));
    const masked = { ...batch, lossMask: left };
    const before = await compute(masked, { lossMask: true });
    const after = await compute({ ...masked, target: tensor(hidden, batch.target.shape) }, { lossMask: true });
    expect(after.losses).toEqual(before.losses);
    expect(flat(after)).toEqual(flat(before));
    const shown = batch.target.data.map((value, i) => (i % 8 < 4 ? 5 - value : value));
    const other = await compute({ ...masked, target: tensor(shown, batch.target.shape) }, { lossMask: true });
    expect(other.losses.mse).not.toBe(before.losses.mse);
    expect(other.losses.fecl).not.toBe(before.losses.fecl);
  });

  it("tells what each sample lost, without its weight, whether the batch is divided or not", async () => {
    const lossWeights = tensor([3, 0], [B]);
    const { sampleLosses } = await compute({ ...batch, lossWeights }, { lossWeights: true });
    const alone = [await compute(rowOf(0)), await compute(rowOf(1))];
    expect(sampleLosses!.timesteps).toEqual([300, 700]);
    expect(sampleLosses!.losses.length).toBe(B);
    alone.forEach(({ losses }, i) => {
      expect(Math.abs(sampleLosses!.losses[i]! - losses.mse!) / losses.mse!).toBeLessThan(TOLERANCE);
    });
  });

  it("tells those of all batches of an accumulated step, and of one on a device", async () => {
    for (const stateOnDevice of [false, true]) {
      const optimizer = new AdamW({ lr: 0 });
      const step = await fera.compileTrainStep({
        batchSize: B,
        height: 8,
        width: 8,
        tokens: 5,
        optimizer,
        stateOnDevice,
      });
      const run = new OptimizerStep<TrainStepInputs>({ trainable: step as never, optimizer });
      const batches = stateOnDevice ? [batch] : [batch, batch];
      const outcome = await run.run(batches, { name: "test", advice: () => "" });
      await step.release();
      expect(outcome.sampleLosses!.timesteps).toEqual(batches.flatMap(() => [300, 700]));
      expect(outcome.sampleLosses!.losses.length).toBe(B * batches.length);
    }
  });

  it("has the objective's terms and weights by noise level", async () => {
    const objective = createObjective({}, { minSnrGamma: 1, loss: "huber", huberC: 0.2 });
    const noised = objective.noised(batch.latents, batch.target, [300, 700]);
    const { losses, sampleLosses } = await compute({ ...batch, ...noised }, { objective });
    const expected = sampleLosses!.losses.map((loss, i) => loss * objective.lossWeight([300, 700][i]!));
    expect(losses.huber! / ((expected[0]! + expected[1]!) / 2)).toBeCloseTo(1, 5);
    expect(losses.loss).toBeCloseTo(losses.huber! + losses.fecl!, 5);
    expect(Object.keys(losses)).toEqual(["loss", "huber", "fecl"]);
  });

  it("refuses weights that it would drop, and a batch without those that it needs", async () => {
    const objective = createObjective({}, { minSnrGamma: 1 });
    await expect(compute({ ...batch, lossWeights: tensor([1, 1], [B]) })).rejects.toThrow(
      "the batch has lossWeights, which the step was compiled without; give compileTrainStep lossWeights: true",
    );
    await expect(compute(batch, { objective })).rejects.toThrow("the objective needs lossWeights in every batch");
  });
});

it("the balance loss is of the whole batch, however many threads there are", async () => {
  const losses = [];
  for (const threads of [1, 2]) {
    const own = await UNet2DConditionModel.fromPretrained(REFERENCE, { subfolder: "unet", threads });
    const balanced = new FeRAModel(own, FeRAConfig.reference({ feclWeight: 0, balanceWeight: 0.5 }));
    const step = await balanced.compileTrainStep({ batchSize: B, height: 8, width: 8, tokens: 5 });
    losses.push((await step.compute(batch)).losses.balance!);
    await step.release();
    await own.release();
  }
  expect(losses[0]).toBeGreaterThan(0);
  expect(Math.abs(losses[1]! - losses[0]!) / losses[0]!).toBeLessThan(TOLERANCE);
});
