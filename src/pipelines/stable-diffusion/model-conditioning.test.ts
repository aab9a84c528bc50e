// Models that are told more than text: classes, and the guidance scale of distilled ones.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../../test/support/tiny-pipeline.js";
import { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { concatRows } from "../../tensor/rows.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { guidanceScaleEmbedding } from "../guidance.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";

/** The same products in batches of another size. */
const TOLERANCE = 1e-5;
const CLASSES = 5;
const FEATURES = 6;

let dir: string;
let plain: StableDiffusionPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-conditioning-"));
  await writeTinyPipeline(dir);
  plain = await StableDiffusionPipeline.fromPretrained(dir);
});
afterAll(async () => {
  await plain?.dispose();
  await rm(dir, { recursive: true, force: true });
});

function pipelineWith(options: object): StableDiffusionPipeline {
  const { unet, vae, textEncoder, tokenizer, scheduler } = plain;
  const { blocks: _b, timeFeatures: _t, midTransformers: _m, ...config } = unet.config;
  const changed = UNet2DConditionModel.fromConfig({ ...config, ...options }, new Generator(3));
  return new StableDiffusionPipeline({ unet: changed, vae, textEncoder, tokenizer, scheduler });
}

/** One step of the sampler, by hand. */
async function stepped(pipe: StableDiffusionPipeline, output: Tensor<"float32">, noise: Tensor<"float32">) {
  pipe.scheduler.setTimesteps(1);
  return pipe.scheduler.step(output, pipe.scheduler.timesteps[0]!, noise).prevSample.data;
}

describe("a model with classes", () => {
  let pipe: StableDiffusionPipeline;
  beforeAll(() => {
    pipe = pipelineWith({ num_class_embeds: CLASSES });
  });
  afterAll(() => pipe.unet.release());

  it("is told them, one per prompt, with and without guidance", async () => {
    const run = { prompt: ["a", "a red circle"], steps: 1, seed: 1, classLabels: [4, 2] };
    const noise = randn([2, 4, 8, 8], { generator: new Generator(1) });
    const encoderHiddenStates = await pipe.encodePrompt(run.prompt);
    pipe.scheduler.setTimesteps(1);
    const timesteps = tensor([pipe.scheduler.timesteps[0]!]);
    const classLabels = tensor([4, 2], [2], "int64");
    const output = await pipe.unet.predict({ latents: noise, timesteps, encoderHiddenStates, classLabels });
    const { latents } = await pipe.generate({ ...run, guidanceScale: 1 });
    expect(relativeError(latents.data, await stepped(pipe, output, noise))).toBeLessThan(TOLERANCE);

    const both = concatRows([await pipe.encodePrompt(["", ""]), encoderHiddenStates]);
    const doubled = await pipe.unet.predict({
      latents: concatRows([noise, noise]),
      timesteps,
      encoderHiddenStates: both,
      classLabels: concatRows([classLabels, classLabels]),
    });
    const half = doubled.size / 2;
    const guided = doubled.data.slice(0, half).map((u, i) => u + 3 * (doubled.data[half + i]! - u));
    const withGuidance = await pipe.generate({ ...run, guidanceScale: 3 });
    expect(
      relativeError(withGuidance.latents.data, await stepped(pipe, tensor(guided, noise.shape), noise)),
    ).toBeLessThan(TOLERANCE);
  });

  it("makes another image of another class, and the same of one class for all", async () => {
    const run = { prompt: ["a", "a"], numImages: 2, steps: 1, seed: 1 };
    const all = await pipe.generate({ ...run, classLabels: 3 });
    const each = await pipe.generate({ ...run, classLabels: tensor([3, 3, 3, 3], [4], "int64") });
    expect(relativeError(all.latents.data, each.latents.data)).toBe(0);
    const other = await pipe.generate({ ...run, classLabels: [3, 1] });
    expect(relativeError(other.latents.data.slice(0, 512), all.latents.data.slice(0, 512))).toBeLessThan(TOLERANCE);
    expect(relativeError(other.latents.data.slice(512), all.latents.data.slice(512))).toBeGreaterThan(1e-3);
  });

  it("refuses to guess them, others than there are, and a wrong number", async () => {
    const run = { prompt: ["a", "b"], steps: 1 };
    await expect(pipe.generate(run)).rejects.toThrow(/trained with classes; give classLabels, one per prompt/);
    await expect(pipe.generate({ ...run, classLabels: CLASSES })).rejects.toThrow(/0 … 4 \(num_class_embeds\); got 5/);
    await expect(pipe.generate({ ...run, classLabels: [1, 2, 3] })).rejects.toThrow(
      /classLabels must have 1 or 2 rows; got \[3\]/,
    );
    await expect(plain.generate({ ...run, classLabels: 1 })).rejects.toThrow(/this model takes no classLabels/);
  });
});

describe("a model that was distilled with guidance", () => {
  let pipe: StableDiffusionPipeline;
  beforeAll(() => {
    pipe = pipelineWith({ time_cond_proj_dim: FEATURES });
  });
  afterAll(() => pipe.unet.release());

  it("is told the guidance scale, and runs without a negative prompt", async () => {
    const noise = randn([1, 4, 8, 8], { generator: new Generator(1) });
    const encoderHiddenStates = await pipe.encodePrompt(["a"]);
    pipe.scheduler.setTimesteps(1);
    const timesteps = tensor([pipe.scheduler.timesteps[0]!]);
    const timestepCond = guidanceScaleEmbedding(8, FEATURES, 1);
    const output = await pipe.unet.predict({ latents: noise, timesteps, encoderHiddenStates, timestepCond });
    const run = { prompt: "a", steps: 1, seed: 1, guidanceScale: 8 };
    const { latents } = await pipe.generate({ ...run, negativePrompt: "blue" });
    expect(relativeError(latents.data, await stepped(pipe, output, noise))).toBeLessThan(TOLERANCE);
    expect((await pipe.generate({ ...run, timestepCond })).latents.data).toEqual(latents.data);
    const weaker = await pipe.generate({ ...run, guidanceScale: 2 });
    expect(relativeError(weaker.latents.data, latents.data)).toBeGreaterThan(1e-4);
  });

  it("refuses rows of another width, and others refuse the input", async () => {
    await expect(pipe.generate({ prompt: "a", steps: 1, timestepCond: tensor([1], [1, 1]) })).rejects.toThrow(
      /timestepCond must be \[1, 6\]/,
    );
    await expect(plain.generate({ prompt: "a", steps: 1, timestepCond: tensor([1], [1, 1]) })).rejects.toThrow(
      /takes no timestepCond/,
    );
  });
});

describe("guidanceScaleEmbedding", () => {
  it("is sines, then cosines, of 1000 (scale − 1) at falling frequencies", () => {
    const [w, half] = [1000 * 6.5, 4];
    const angles = Array.from({ length: half }, (_, i) => w * 10000 ** (-i / (half - 1)));
    const expected = [...angles.map(Math.sin), ...angles.map(Math.cos)];
    const { shape, data } = guidanceScaleEmbedding(7.5, 8, 2);
    expect(shape).toEqual([2, 8]);
    // float32 angles of thousands are exact to 2e-4.
    for (const row of [data.slice(0, 8), data.slice(8)]) expect(relativeError(row, expected)).toBeLessThan(5e-4);
  });

  it("at scale 1 is zeros, then ones; an odd width ends in 0", () => {
    expect([...guidanceScaleEmbedding(1, 7, 1).data]).toEqual([0, 0, 0, 1, 1, 1, 0]);
  });
});
