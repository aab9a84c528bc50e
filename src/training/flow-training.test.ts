// Trainings of pipelines of flow matching, from images and captions to an adapter's file that the pipeline draws with.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeTinyImages } from "../../test/support/fera-program.js";
import { FeRAConfig, LoRAConfig } from "../adapters/index.js";
import "../index.js";
import { FluxPipeline, loadPipeline, StableDiffusion3Pipeline } from "../pipelines/index.js";
import { checkCaptionTokens } from "./check-captions.js";
import { fineTune } from "./fine-tune.js";
import { type ImageDataset, openDataset } from "./index.js";

const PIPELINES = "test/reference/pipelines";
const TARGETS = ["to_q", "to_v"];
let dir: string;
let dataset: ImageDataset;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-flow-training-"));
  await writeTinyImages(join(dir, "images"));
  dataset = await openDataset(join(dir, "images"), { size: 16 });
});
afterAll(() => rm(dir, { recursive: true }));

it.each([
  ["stable-diffusion-3", new LoRAConfig({ rank: 2, targetModules: TARGETS })],
  ["flux", new FeRAConfig({ rank: 2, numExperts: 2, targetModules: TARGETS })],
])("%s is trained, and draws with what was learned", async (name, config) => {
  await using pipeline = await loadPipeline(`${PIPELINES}/${name}`);
  const { adapter, finished } = await fineTune({
    ...{ pipeline, dataset, config, output: join(dir, name), cacheDir: join(dir, "cache") },
    ...{ steps: 2, batchSize: 2, learningRate: 0.1, ema: 0, seed: 0 },
  });
  expect(finished).toBe(true);
  const draw = async () => {
    const { latents } = await pipeline.generate({ prompt: "a cat", width: 16, height: 16, steps: 1, seed: 0 });
    return latents.data;
  };
  const before = await draw();
  await pipeline.loadAdapters(adapter);
  expect(await draw()).not.toEqual(before);
});

it("text encoders of such a family are not trained", async () => {
  const pipeline = await StableDiffusion3Pipeline.fromPretrained(`${PIPELINES}/stable-diffusion-3`);
  const config = new LoRAConfig({ rank: 2, targetModules: TARGETS });
  const options = { pipeline, dataset, config, output: join(dir, "text"), trainTextEncoder: true };
  await expect(fineTune(options)).rejects.toThrow(/trainTextEncoder is not supported for SD3Transformer2DModel/);
});

it("captions that fill other multiples of 32 tokens are named, where one graph cannot take both", async () => {
  const flux = await FluxPipeline.fromPretrained(`${PIPELINES}/flux`);
  const counts: Record<string, number> = { short: 32, "": 32, long: 64 };
  const pipeline = Object.create(flux, { captionTokens: { value: (caption: string) => counts[caption]! } });
  expect(() => checkCaptionTokens(pipeline, ["short", ""])).not.toThrow();
  expect(() => checkCaptionTokens(pipeline, ["short", "long"])).toThrow(
    /"short" fills 32, "long" 64. Make them of like/,
  );
  expect(() => checkCaptionTokens(pipeline, ["long", ""])).toThrow(/or set captionDropout \(--caption-dropout\) to 0/);
});
