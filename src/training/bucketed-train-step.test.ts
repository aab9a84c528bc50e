import { mkdtempSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeTinyPipeline } from "../../test/support/tiny-pipeline.js";
import "../index.js";
import { AdapterModel, LoRAConfig } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import { RuntimeError } from "../errors.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import { readSafetensors } from "../storage/index.js";
import { Generator } from "../tensor/random.js";
import { BucketedTrainStep, compileForSizes, type StepCompiler } from "./bucketed-train-step.js";
import { type DatasetRows, openDatasetRows } from "./cache/dataset-rows.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import { type FineTuneOptions, fineTune } from "./fine-tune.js";
import { type ImageDataset, openDataset, type StepReport } from "./index.js";

let dir: string;
let pipeline: StableDiffusionPipeline;
let dataset: ImageDataset;
let rows: DatasetRows;
const objective = createObjective({});

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-buckets-"));
  await writeTinyPipeline(join(dir, "model"));
  await mkdir(join(dir, "images"));
  // Shapes of three buckets: two, three and one image.
  for (const [i, height] of [24, 32, 16, 32, 24, 32].entries()) {
    const pixels = Uint8Array.from({ length: 3 * 32 * height }, (_, k) => (k * (5 + i)) % 251);
    await sharp(pixels, { raw: { width: 32, height, channels: 3 } }).toFile(join(dir, "images", `red ${i}.png`));
  }
  pipeline = await StableDiffusionPipeline.fromPretrained(join(dir, "model"));
  const buckets = { bucket: true, bucketMin: 16, bucketMax: 32, bucketStep: 8, bucketNoUpscale: true };
  dataset = await openDataset(join(dir, "images"), { size: 32, validationSplit: 0, ...buckets });
  rows = await openDatasetRows(pipeline, dataset, { cacheDir: join(dir, "cache") });
});
afterAll(async () => {
  await rows.close();
  rmSync(dir, { recursive: true, force: true });
});

const adapters = () => new AdapterModel(pipeline.unet, new LoRAConfig({ rank: 2 }), { seed: 1 });
const batchesOf = (seed: number) =>
  new DiffusionBatches(rows, { batchSize: 2, objective, generator: new Generator(seed) });
const OPTIONS = { batchSize: 2, tokens: 8, objective } as const;

describe("steps by size", () => {
  it("knows all sizes of latents, the largest first", () => {
    expect(rows.sizes.map(({ latentHeight, latentWidth }) => [latentHeight, latentWidth])).toEqual([
      [8, 8],
      [6, 8],
      [4, 8],
    ]);
  });

  for (const [what, float32Bytes] of [
    ["all loaded, of a small model", 1],
    ["one loaded at a time, of a large one", 1e12],
  ] as const) {
    it(`gives the gradients of a step of the batch's own size, to the bit; ${what}`, async () => {
      const model = adapters();
      const compiler: StepCompiler = {
        model: { weights: { float32Bytes } },
        parameters: model.parameters,
        compileTrainStep: (options) => model.compileTrainStep(options),
      };
      const steps = await BucketedTrainStep.compile(compiler, rows.sizes, OPTIONS);
      const batches = batchesOf(2);
      const seen = new Set<string>();
      for (let i = 0; i < 7; i++) {
        const batch = await batches.next();
        const [, , latentHeight, latentWidth] = batch.latents.shape as [number, number, number, number];
        seen.add(`${latentHeight}x${latentWidth}`);
        const own = await model.compileTrainStep({ ...OPTIONS, latentHeight, latentWidth });
        expect(await steps.compute(batch)).toEqual(await own.compute(batch));
        await own.release();
      }
      expect(seen.size).toBe(3);
      await steps.release();
    });
  }

  it("refuses latents of a size that no image has", async () => {
    const steps = await BucketedTrainStep.compile(adapters(), rows.sizes.slice(0, 1), OPTIONS);
    const batches = batchesOf(2);
    const other = async () => {
      for (;;) {
        const batch = await batches.next();
        if (batch.latents.shape[2] !== 8) return batch;
      }
    };
    await expect(steps.compute(await other())).rejects.toThrow(/no image has latents of \d×8; there are 8×8/);
    await steps.release();
  });
});

it("out of memory only after the first epoch: the largest bucket is compiled and run before any step", async () => {
  const model = adapters();
  const done: string[] = [];
  const compiler: StepCompiler = {
    model: model.model,
    parameters: model.parameters,
    async compileTrainStep(options) {
      const { latentHeight } = options;
      done.push(`compile ${latentHeight}`);
      const step = await model.compileTrainStep(options);
      return Object.assign(Object.create(step), {
        release: () => step.release(),
        compute: async () => {
          done.push(`run ${latentHeight}`);
          throw new RuntimeError("ONNX Runtime: Failed to allocate memory");
        },
      });
    },
  };
  const compiled = compileForSizes(compiler, { rows, sizes: rows.sizes }, { batchSize: 2, objective }, OPTIONS);
  await expect(compiled).rejects.toThrow(/Failed to allocate/);
  expect(done).toEqual(["compile 8", "run 8"]);
});

describe("fineTune with buckets", () => {
  async function tune(name: string, options: Partial<FineTuneOptions> = {}) {
    const reports: StepReport[] = [];
    const output = join(dir, name);
    const { adapter, finished } = await fineTune({
      ...{ pipeline, dataset, output, config: new LoRAConfig({ rank: 2 }), seed: 3, steps: 5, batchSize: 2 },
      ...{ learningRate: 1e-3, ema: 0.9, checkpointEvery: 2, cacheDir: join(dir, "cache") },
      onStep: (report) => void reports.push(report),
      ...options,
    });
    const { tensors } = await readSafetensors(adapter);
    const losses = reports.map(({ step, loss, gradientNorm }) => ({ step, loss, gradientNorm }));
    return { losses, finished, trained: [...tensors].map(([key, { data }]) => [key, Array.from(data, Number)]) };
  }

  it("goes on after a cut as if never interrupted, to the bit, with both variants of each image", async () => {
    const whole = await tune("whole", { flip: true });
    const stop = new AbortController();
    const cut = await tune("cut", {
      flip: true,
      signal: stop.signal,
      onStep: ({ step }) => {
        if (step === 2) stop.abort();
      },
    });
    expect(cut.finished).toBe(false);
    const resumed = await tune("cut", { flip: true, resume: true });
    expect(resumed.losses).toEqual(whole.losses.slice(2));
    expect(resumed.trained).toEqual(whole.trained);
  });

  it("gives the same adapter wherever its state and its rows are", async () => {
    const host = await tune("host");
    const memory = await tune("memory", { cacheLatents: "memory", cacheTextEncoderOutputs: "none" });
    expect(memory).toEqual(host);
    const device = await tune("device", { stateOnDevice: true });
    for (const [i, { loss }] of device.losses.entries()) {
      expect(Math.abs(loss / host.losses[i]!.loss - 1)).toBeLessThan(1e-4);
    }
  });

  it("draws crops and captions anew each time, the same for the same seed", async () => {
    const varied = { randomCrop: true, shuffleCaption: true, tagDropout: 0.5 };
    const [first, again] = [await tune("varied", varied), await tune("varied again", varied)];
    expect(first).toEqual(again);
    await expect(tune("kept", { ...varied, cacheLatents: "disk" })).rejects.toThrow(/cacheLatents: the crop is random/);
  });
});
