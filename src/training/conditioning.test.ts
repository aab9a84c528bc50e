// Everything that a denoiser is told reaches training: classes, guidance embeddings, pooled text and sizes.

import { afterAll, describe, expect, it } from "vitest";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { conditioningOf, createObjective } from "../diffusion/index.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import "../runtime/node.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { noisePredictionError } from "./evaluation.js";
import { diffusionBatch } from "./noised-batch.js";
import { AdamW } from "./optimizers/adamw.js";
import { gradientNorm } from "./optimizers/gradient-clipping.js";

const UNET = {
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 6,
  attention_head_dim: 2,
};
const IMAGES = 4;
/** Central differences of a float32 loss. */
const DIFFERENCE = 1e-2;
const TOLERANCE = 5e-3;

const drawn = (shape: number[], seed: number) => randn(shape, { generator: new Generator(seed) });
const text = { encoderHiddenStates: drawn([IMAGES, 3, 6], 2) };
const noText = { encoderHiddenStates: drawn([1, 3, 6], 3) };
const objective = createObjective({});

/** Further configuration, what it asks for of every image, and the same of no image. */
const CASES: Record<string, { config: object; conditioning: Record<string, Tensor>; other: Tensor }> = {
  classLabels: {
    config: { num_class_embeds: 5 },
    conditioning: { classLabels: tensor([4, 0, 3, 1], [IMAGES], "int64") },
    other: tensor([2, 2], [2], "int64"),
  },
  timestepCond: {
    config: { time_cond_proj_dim: 7 },
    conditioning: { timestepCond: drawn([IMAGES, 7], 4) },
    other: drawn([2, 7], 5),
  },
};

const released: { release(): Promise<void> }[] = [];
afterAll(async () => {
  for (const each of released) await each.release();
});

describe.each(Object.entries(CASES))("a checkpoint that needs %s", (name, { config, conditioning, other }) => {
  const data: EncodedDataset = {
    latents: drawn([IMAGES, 4, 4, 4], 1),
    conditioning: { ...text, ...conditioning },
    empty: noText,
  };

  async function training() {
    const unet = UNet2DConditionModel.fromConfig({ ...UNET, ...config }, new Generator(7));
    const fera = new FeRAModel(unet, new FeRAConfig({ rank: 2 }));
    // Fresh adapters change nothing, and most of their gradients are zero.
    for (const [path, { data: values, size }] of fera.parameters) {
      if (path.endsWith(".up")) values.set(drawn([size], size).data.map((value) => value * 0.3));
    }
    const optimizer = new AdamW({ lr: 1e-2 });
    const step = await fera.compileTrainStep({
      ...{ batchSize: 2, latentHeight: 4, latentWidth: 4, tokens: 3, optimizer },
    });
    released.push(step, fera, unet);
    return { fera, step };
  }

  it("trains: gradients are those of the loss, which depends on it, and a step lowers it", async () => {
    const { fera, step } = await training();
    const batch = await new DiffusionBatches(data, { batchSize: 2, objective, generator: new Generator(9) }).next();
    const { gradients, losses } = await step.compute(batch);
    const changed = await step.evaluate({ ...batch, [name]: other });
    expect(Math.abs(changed.loss / losses.loss - 1)).toBeGreaterThan(1e-4);

    // Along the gradient itself the loss rises by its norm.
    const norm = gradientNorm(gradients);
    const lossAt = async (distance: number): Promise<number> => {
      const move = (by: number) => {
        for (const [path, { data: values }] of fera.parameters) {
          const gradient = gradients.get(path)!;
          for (let i = 0; i < values.length; i++) values[i] = values[i]! + (by / norm) * gradient[i]!;
        }
      };
      move(distance);
      const { loss } = await step.evaluate(batch);
      move(-distance);
      return loss;
    };
    const measured = ((await lossAt(DIFFERENCE)) - (await lossAt(-DIFFERENCE))) / (2 * DIFFERENCE);
    expect(Math.abs(norm / measured - 1)).toBeLessThan(TOLERANCE);

    const before = await step.run(batch);
    expect((await step.evaluate(batch)).loss).toBeLessThan(before.loss);
  });

  it("is evaluated with what belongs to each image", async () => {
    const { fera } = await training();
    const options = { objective, seed: 0, timestepsPerImage: 1, batchSize: 2 };
    const { error } = await noisePredictionError(fera, data, options);
    const shuffled = { ...data, conditioning: { ...data.conditioning, [name]: rotated(conditioning[name]!) } };
    const { error: wrong } = await noisePredictionError(fera, shuffled, options);
    expect(Math.abs(wrong / error - 1)).toBeGreaterThan(1e-4);
    const missing = { ...data, conditioning: text };
    await expect(noisePredictionError(fera, missing, options)).rejects.toThrow(new RegExp(`needs ${name}`));
  });
});

/** The first row last. */
function rotated({ data, dtype, shape }: Tensor): Tensor {
  const row = data.length / shape[0]!;
  const values = Array.from(data, Number);
  return tensor([...values.slice(row), ...values.slice(0, row)], shape, dtype as "float32");
}

describe("batches", () => {
  const latents = drawn([IMAGES, 4, 2, 2], 1);
  const sizes = drawn([IMAGES, 6], 5);

  it("have every image's conditions, and without its caption those of the empty one and its own others", () => {
    const data = { latents, conditioning: { ...text, timeIds: sizes }, empty: noText };
    const options = { objective, generator: new Generator(0), dropped: [false, true] };
    const batch = conditioningOf(diffusionBatch(data, [3, 1], options));
    const values = (name: string) => batch[name]!.data as Float32Array;
    const rows = text.encoderHiddenStates.data;
    expect(values("encoderHiddenStates")).toEqual(
      Float32Array.from([...rows.subarray(54), ...noText.encoderHiddenStates.data]),
    );
    expect(values("timeIds")).toEqual(Float32Array.from([...sizes.data.subarray(18), ...sizes.data.subarray(6, 12)]));
  });

  it("are refused where images and conditions do not fit each other", () => {
    const batches = (conditioning: Record<string, Tensor>, empty: Record<string, Tensor> = {}) => {
      const options = { batchSize: 1, objective, generator: new Generator(0) };
      return () => new DiffusionBatches({ latents, conditioning, empty }, options);
    };
    expect(batches({ timeIds: drawn([3, 6], 1) })).toThrow(/timeIds must have a row for each of 4 images; got 3/);
    expect(batches(text, { encoderHiddenStates: drawn([1, 2, 6], 1) })).toThrow(
      /empty encoderHiddenStates must be \[1,3,6\]; got \[1,2,6\]/,
    );
    expect(batches(text, { textEmbeds: drawn([1, 6], 1) })).toThrow(/empty textEmbeds must be left out/);
  });
});
