// What people who train adapters complain of most, one test each, on a real training of a tiny pipeline.

import { mkdtempSync, rmSync } from "node:fs";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeTinyImages } from "../../test/support/fera-program.js";
import { relativeError } from "../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../test/support/tiny-pipeline.js";
import { AdapterModel, LoRAConfig } from "../adapters/index.js";
import "../index.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import { readSafetensors, writeSafetensors } from "../storage/index.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { type FineTuneOptions, fineTune } from "./fine-tune.js";
import { openDataset, type StepReport } from "./index.js";

let dir: string;
let pipeline: StableDiffusionPipeline;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-pains-"));
  await writeTinyPipeline(join(dir, "model"));
  await writeTinyImages(join(dir, "images"));
  pipeline = await StableDiffusionPipeline.fromPretrained(join(dir, "model"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const open = (folder: string) => openDataset(join(dir, folder), { size: 32, validationSplit: 0 });

/** A short LoRA training into a folder of its own; caches in a folder that all of them share. */
async function train(output: string, options: Partial<FineTuneOptions> & { images?: string } = {}) {
  const { images = "images", ...others } = options;
  const losses: number[] = [];
  const result = await fineTune({
    ...{ pipeline, dataset: await open(images), output: join(dir, output), config: new LoRAConfig({ rank: 2 }) },
    ...{ steps: 4, batchSize: 2, learningRate: 1e-2, seed: 3, cacheDir: join(dir, "cache") },
    onStep: ({ loss }: StepReport) => void losses.push(loss),
    ...others,
  });
  const { tensors } = await readSafetensors(result.adapter);
  return { ...result, losses, tensors, values: [...tensors.values()].flatMap(({ data }) => Array.from(data, Number)) };
}

/** Copies the images and writes captions beside them. */
async function captioned(folder: string, caption: string): Promise<void> {
  await cp(join(dir, "images"), join(dir, folder), { recursive: true });
  for (const name of ["a-red-circle", "a-blue-square", "red", "blue", "circle", "square"]) {
    await writeFile(join(dir, folder, `${name}.txt`), caption);
  }
}

it("resume that changes numbers", async () => {
  const whole = await train("whole");
  const stop = new AbortController();
  const losses: number[] = [];
  const cut = await train("cut", {
    signal: stop.signal,
    onStep: ({ step, loss }) => {
      losses.push(loss);
      if (step === 2) stop.abort();
    },
  });
  expect(cut.finished).toBe(false);
  const resumed = await train("cut", { resume: true });
  expect([...losses, ...resumed.losses]).toEqual(whole.losses);
  expect(resumed.values).toEqual(whole.values);
});

it("captions ignored", async () => {
  await captioned("red", "red");
  await captioned("blue", "blue");
  const options = { captionDropout: 0 };
  const red = await train("of-red", { ...options, images: "red" });
  const blue = await train("of-blue", { ...options, images: "blue" });
  expect(relativeError(red.losses, blue.losses)).toBeGreaterThan(1e-6);
});

describe("zero keys loaded silently", () => {
  it("an adapter whose layers are not the model's is refused", async () => {
    const { tensors } = await train("for-keys");
    const renamed = new Map([...tensors].map(([name, value]) => [name.replace("attn1", "attn9"), value]));
    await writeSafetensors(join(dir, "foreign.safetensors"), renamed as Map<string, Tensor>);
    await expect(pipeline.loadAdapters(join(dir, "foreign.safetensors"))).rejects.toThrow(/attn9/);
  });

  it("and so is one that lacks half of a pair", async () => {
    const { tensors } = await train("for-pairs");
    const up = [...tensors.keys()].find((name) => /lora_(?:up|B)\b/.test(name));
    expect(up).toBeDefined();
    const rest = new Map([...tensors].filter(([name]) => name !== up));
    await writeSafetensors(join(dir, "half.safetensors"), rest as Map<string, Tensor>);
    await expect(pipeline.loadAdapters(join(dir, "half.safetensors"))).rejects.toThrow(/half\.safetensors/);
  });
});

it("stale caches", async () => {
  await cp(join(dir, "images"), join(dir, "changing"), { recursive: true });
  const before = await train("before", { images: "changing" });
  // Another image under the same name, of the same size, within the same second.
  const background = { r: 1, g: 2, b: 3 };
  for (const name of ["red", "blue", "circle"]) {
    await sharp({ create: { width: 40, height: 36, channels: 3, background } })
      .png()
      .toFile(join(dir, "changing", `${name}.png`));
  }
  const after = await train("after", { images: "changing" });
  const fresh = await train("fresh", { images: "changing", cacheLatents: "memory", cacheTextEncoderOutputs: "memory" });
  expect(after.losses).toEqual(fresh.losses);
  expect(after.losses).not.toEqual(before.losses);
});

it("a run that goes on with NaN", async () => {
  await expect(train("diverging", { learningRate: 1e38, maxGradientNorm: 0 })).rejects.toThrow(
    /step \d+.*not finite.*learning rate/is,
  );
});

it("same seed and other result", async () => {
  const [first, second, other] = [await train("seed-a"), await train("seed-b"), await train("seed-c", { seed: 4 })];
  expect(second.losses).toEqual(first.losses);
  expect(second.values).toEqual(first.values);
  expect(other.losses).not.toEqual(first.losses);
});

it("images rotated", async () => {
  await mkdir(join(dir, "upright"));
  await mkdir(join(dir, "turned"));
  const pixels = Uint8Array.from({ length: 3 * 48 * 32 }, (_, i) => (i * 7) % 256);
  const image = sharp(pixels, { raw: { width: 48, height: 32, channels: 3 } });
  await image
    .clone()
    .png()
    .toFile(join(dir, "upright", "red.png"));
  // As a phone held upright stores it: on its side, with a note of how to turn it.
  await image
    .clone()
    .rotate(270)
    .withMetadata({ orientation: 6 })
    .png()
    .toFile(join(dir, "turned", "red.png"));
  const [upright, turned] = [await open("upright"), await open("turned")];
  expect(await turned.image(0)).toEqual(await upright.image(0));
});

it("an adapter saved that was not trained", async () => {
  const { model, tensors } = await train("trained");
  const fresh = new AdapterModel(pipeline.unet, new LoRAConfig({ rank: 2 }), { seed: 3 });
  const state = model.stateDict();
  expect(tensors.size).toBeGreaterThan(0);
  for (const [name, { data }] of fresh.stateDict()) {
    // Every tensor that is saved has moved, and the file holds what the model predicts with.
    expect(Array.from(state.get(name)!.data), name).not.toEqual(Array.from(data));
  }
  const loaded = await AdapterModel.create(pipeline.unet, new LoRAConfig({ rank: 2 }));
  await loaded.loadAdapters(join(dir, "trained", "adapter.safetensors"));
  for (const [name, { data }] of loaded.stateDict()) expect(data, name).toEqual(state.get(name)!.data);
});

it("wrong alpha in export", async () => {
  const config = new LoRAConfig({ rank: 4, alpha: 1, targetModules: ["to_q", "to_v"] });
  const model = new AdapterModel(pipeline.unet, config, { seed: 5 });
  const generator = new Generator(9);
  for (const { data, shape } of model.parameters.values()) data.set(randn(shape, { generator }).data);
  const inputs = {
    latents: randn([1, 4, 8, 8], { generator }),
    timesteps: tensor([400], [1], "int64"),
    encoderHiddenStates: randn([1, 8, 24], { generator }),
  };
  const own = await model.predict(inputs);
  for (const file of ["alpha.safetensors", "alpha-folder"]) {
    await model.saveAdapters(join(dir, file));
    const loaded = new AdapterModel(pipeline.unet, new LoRAConfig({ rank: 1 }));
    await loaded.loadAdapters(join(dir, file));
    expect(loaded.config).toMatchObject({ rank: 4, alpha: 1 });
    expect(relativeError((await loaded.predict(inputs)).data, own.data)).toBeLessThan(1e-6);
  }
  // alpha / rank counts: with alpha = rank the same tensors give another prediction.
  const unscaled = new AdapterModel(
    pipeline.unet,
    new LoRAConfig({ rank: 4, alpha: 4, targetModules: ["to_q", "to_v"] }),
  );
  for (const [name, { data }] of model.parameters) unscaled.parameters.get(name)!.data.set(data);
  expect(relativeError((await unscaled.predict(inputs)).data, own.data)).toBeGreaterThan(1e-3);
});

it("out of memory only after the first epoch", async () => {
  await mkdir(join(dir, "shapes"));
  for (const [i, height] of [16, 32, 24, 16].entries()) {
    await sharp({ create: { width: 32, height, channels: 3, background: { r: 60 * i, g: 9, b: 200 } } })
      .png()
      .toFile(join(dir, "shapes", `red ${i}.png`));
  }
  const buckets = { bucket: true, bucketMin: 16, bucketMax: 32, bucketStep: 8, bucketNoUpscale: true };
  const dataset = await openDataset(join(dir, "shapes"), { size: 32, validationSplit: 0, ...buckets });
  const tried: string[] = [];
  const phases: string[] = [];
  await train("sizes", {
    dataset,
    onPhase: (phase) => {
      phases.push(phase.kind);
      if (phase.kind === "compiling") tried.push(JSON.stringify(phase));
    },
  });
  // The largest is compiled and run before anything is written, let alone a first epoch.
  expect(phases.indexOf("compiling")).toBeGreaterThanOrEqual(0);
  expect(phases.indexOf("compiling")).toBeLessThan(phases.indexOf("starting"));
});
