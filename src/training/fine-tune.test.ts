import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeTinyImages } from "../../test/support/fera-program.js";
import { relativeError } from "../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../test/support/tiny-pipeline.js";
import { FeRAConfig, LoRAConfig } from "../adapters/index.js";
import { readSafetensors } from "../storage/index.js";
import type { Tensor } from "../tensor/tensor.js";
import "../index.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import { readCheckpoint } from "./checkpoint.js";
import { type FineTuneOptions, fineTune } from "./fine-tune.js";
import { type ImageDataset, openDataset, type StepReport } from "./index.js";
import { OPTIMIZER_NAMES } from "./optimizers/index.js";

const STEPS = 3;

let dir: string;
let pipeline: StableDiffusionPipeline;
let dataset: ImageDataset;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-fine-tune-"));
  await writeTinyPipeline(join(dir, "model"));
  await writeTinyImages(join(dir, "images"));
  pipeline = await StableDiffusionPipeline.fromPretrained(join(dir, "model"));
  dataset = await openDataset(join(dir, "images"), { size: 32 });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A short training with average, clipping and a checkpoint. */
async function tune(name: string, options: Partial<FineTuneOptions>) {
  const reports: StepReport[] = [];
  const output = join(dir, name);
  const { adapter } = await fineTune({
    ...{ pipeline, dataset, output, config: new FeRAConfig({ rank: 2, dropout: 0.1 }), seed: 0 },
    ...{ steps: STEPS, batchSize: 2, learningRate: 1e-3, ema: 0.9, maxGradientNorm: 0.1, checkpointEvery: 2 },
    onStep: (report) => void reports.push(report),
    ...options,
  });
  const { tensors } = await readSafetensors(adapter);
  return { reports, trained: [...tensors.values()].flatMap(({ data }) => Array.from(data, Number)) };
}

const VALIDATED = { validationPrompts: ["a red circle"], validateEvery: 2 };
for (const [what, options] of [
  ["with validation images", VALIDATED],
  ["several batches to a step", { gradientAccumulation: 2 }],
] as const) {
  it(`gives the same adapter wherever its state is, ${what}`, async () => {
    const device = await tune(`device ${what}`, { ...options, stateOnDevice: true });
    const host = await tune(`host ${what}`, options);
    expect(device.reports).toHaveLength(STEPS);
    for (const [i, { loss, gradientNorm }] of device.reports.entries()) {
      expect(Math.abs(loss / host.reports[i]!.loss - 1)).toBeLessThan(1e-4);
      expect(Math.abs(gradientNorm / host.reports[i]!.gradientNorm - 1)).toBeLessThan(1e-3);
    }
    expect(relativeError(device.trained, host.trained)).toBeLessThan(1e-4);
  });
}

it("takes what is left out from the table of options, and refuses what it does not know", async () => {
  const output = join(dir, "defaults");
  const required = { pipeline, dataset, output, config: new FeRAConfig({ rank: 1 }) };
  const { checkpoint } = await fineTune({ ...required, steps: 1 });
  const fingerprint = JSON.parse((await readCheckpoint(checkpoint)).fingerprint);
  const { batchSize, learningRate, captionDropout, seed } = fingerprint;
  expect({ batchSize, learningRate, captionDropout, seed }).toEqual({
    ...{ batchSize: 4, learningRate: 1e-4, captionDropout: 0.1, seed: 0 },
  });
  const other = { ...required, output: join(dir, "other") };
  await expect(fineTune({ ...other, lr: 1 } as FineTuneOptions)).rejects.toThrow(
    /unknown option "lr"; known are steps, /,
  );
  await expect(fineTune({ ...other, learningRate: -1 })).rejects.toThrow(/fineTune: learningRate must be .*; got -1/);
  const uniform = { ...other, config: new FeRAConfig({ router: "uniform" }), adapterName: "own.pt" };
  await expect(fineTune(uniform)).rejects.toThrow(/own\.pt: a \.pt file cannot say/);
});

it("every optimizer trains, and what is saved by schedule-free AdamW is its average", async () => {
  for (const optimizer of OPTIMIZER_NAMES) {
    const { reports } = await tune(`by ${optimizer}`, { optimizer, ema: 0, learningRate: undefined });
    expect(reports).toHaveLength(STEPS);
  }
  const output = join(dir, "by schedule-free");
  const saved = (await readSafetensors(join(output, "adapter.safetensors"))).tensors;
  const { parameters } = await readCheckpoint(join(output, "checkpoints", `checkpoint-0000000${STEPS}.safetensors`));
  const name = [...parameters.keys()].find((key) => key.startsWith("router."))!;
  expect([...saved.keys()].filter((key) => key.endsWith(name))).toHaveLength(1);
  const average = [...saved].find(([key]) => key.endsWith(name))![1];
  expect(relativeError(average.data as Float32Array, parameters.get(name)!.data)).toBeGreaterThan(1e-6);
});

it("resumes a training by schedule-free AdamW, by block, to the bit", async () => {
  const options = { optimizer: "schedule-free", ema: 0, routerLr: 0.5, blockLr: ["mid_block=0"] } as const;
  const whole = await tune("whole", { ...options, blockLr: [...options.blockLr] });
  const stop = new AbortController();
  const cut = { ...options, blockLr: [...options.blockLr], signal: stop.signal };
  await tune("cut", { ...cut, onStep: ({ step }) => void (step === 2 && stop.abort()) });
  const { trained } = await tune("cut", { ...options, blockLr: [...options.blockLr], resume: true });
  expect(trained).toEqual(whole.trained);
});

it("refuses optimizer options that do nothing, or exclude each other", async () => {
  for (const [options, message] of [
    [{ ema: 0, emaWarmup: true }, /fineTune: emaWarmup needs ema/],
    [{ optimizer: "schedule-free" }, /ema and the optimizer schedule-free exclude each other/],
    [{ restarts: 2 }, /restarts is for the schedule cosine-restarts/],
    [{ decaySteps: 0.5 }, /decaySteps needs a schedule that falls/],
    [{ warmup: 9 }, /warmup must not exceed steps; got 9 and 3/],
    [{ blockLr: ["nothing=1"] }, /"nothing" fits the name of no trained tensor/],
  ] as [Partial<FineTuneOptions>, RegExp][]) {
    await expect(tune("refused", options)).rejects.toThrow(message);
  }
});

const TEXT = { trainTextEncoder: true, textEncoderLr: 5e-4, stopTextEncoder: 2, captionDropout: 0.3 } as const;

for (const [what, options] of [
  ["LoRA", { config: new LoRAConfig({ rank: 2, dropout: 0.1 }), ema: 0 }],
  ["FeRA, averaged", { config: new FeRAConfig({ rank: 2 }), ema: 0.9 }],
] as const) {
  it(`trains the text encoder, too, and goes on after a cut as if there had been none: ${what}`, async () => {
    const settings = {
      ...TEXT,
      ...options,
      ...VALIDATED,
      checkpointEvery: 1,
      keepCheckpoints: 0,
      validationDataset: dataset,
      validationLossEvery: 1,
    };
    const whole = await tune(`text ${what}`, settings);
    const cut = new AbortController();
    const onStep = ({ step }: StepReport) => {
      if (step === 1) cut.abort();
    };
    const name = `text cut ${what}`;
    await tune(name, { ...settings, onStep, signal: cut.signal });
    const { tensors: atCut } = await readSafetensors(checkpointOf(name, 1));
    const resumed = await tune(name, { ...settings, resume: true });
    expect(resumed.trained).toEqual(whole.trained);
    // One step at the text encoder's rate, and after its stop none: the optimizer's steps are about the rate in size.
    const { tensors: atStop } = await readSafetensors(checkpointOf(`text ${what}`, 2));
    const { tensors: atEnd } = await readSafetensors(checkpointOf(`text ${what}`, 3));
    const ofText = [...atEnd.keys()].filter((key) => key.startsWith("parameter.text_encoder."));
    expect(ofText.length).toBe(2 * 4 * 2);
    for (const key of ofText) expect(atEnd.get(key)!.data, key).toEqual(atStop.get(key)!.data);
    expect(ofText.some((key) => !isSame(atStop.get(key)!, atCut.get(key)!))).toBe(true);
    const others = [...atEnd.keys()].filter((key) => /^parameter\.(?!text_encoder)/.test(key));
    expect(others.some((key) => !isSame(atEnd.get(key)!, atStop.get(key)!))).toBe(true);
  });
}

it("keeps no text states where what makes them is trained, and says what contradicts itself", async () => {
  const lora = { config: new LoRAConfig({ rank: 2 }) };
  await expect(tune("kept text", { ...TEXT, ...lora, cacheTextEncoderOutputs: "memory" })).rejects.toThrow(
    /cacheTextEncoderOutputs: what makes them of captions is trained, so that nothing can be kept; got "memory"/,
  );
  await expect(tune("no text", { ...lora, textEncoderLr: 1e-4 })).rejects.toThrow(
    /textEncoderLr needs trainTextEncoder/,
  );
  await expect(tune("folder", { ...lora, ...TEXT, adapterName: "adapter" })).rejects.toThrow(
    /PEFT's folder cannot hold adapters of text encoders/,
  );
});

const TOKEN = { trainTokens: "<sks>", initializeTokens: "red", tokenVectors: 2, captionDropout: 0 } as const;

for (const [what, options] of [
  ["alone", { config: new FeRAConfig({ rank: 2 }), tokensOnly: true, ema: 0, maxGradientNorm: 0 }],
  ["with adapters of denoiser and text encoder, averaged", { config: new LoRAConfig({ rank: 2 }), ...TEXT, ema: 0.9 }],
] as const) {
  it(`learns a new token, and goes on after a cut as if there had been none: ${what}`, async () => {
    const captioned = await openDataset(join(dir, "images"), { size: 32, captionPrefix: "<sks>" });
    const settings = { dataset: captioned, ...TOKEN, ...options, ...VALIDATED, checkpointEvery: 1, keepCheckpoints: 0 };
    const name = `token ${what}`;
    const learned = async (run: string) => {
      const { tensors } = await readSafetensors(join(dir, run, "learned_embeds.safetensors"));
      expect([...tensors.keys()]).toEqual(["<sks>"]);
      return tensors.get("<sks>")!;
    };
    const whole = await tune(name, settings);
    const vectors = await learned(name);
    expect(vectors.shape).toEqual([2, 24]);
    const red = await pipeline.textEncoder.tokenVectors(pipeline.tokenizer.encode("red").ids.slice(1, 2));
    expect(Array.from((vectors.data as Float32Array).subarray(0, 24))).not.toEqual(Array.from(red.data));
    const adapter = join(dir, name, "adapter.safetensors");
    expect(existsSync(adapter)).toBe(what !== "alone");

    const cut = new AbortController();
    const onStep = ({ step }: StepReport) => {
      if (step === 1) cut.abort();
    };
    await tune(`${name} cut`, { ...settings, onStep, signal: cut.signal });
    const resumed = await tune(`${name} cut`, { ...settings, resume: true });
    expect(resumed.trained).toEqual(whole.trained);
    expect((await learned(`${name} cut`)).data).toEqual(vectors.data);
    await pipeline.unloadTextualInversion("<sks>");
  });
}

it("refuses a token that no caption has, or that begins with nothing", async () => {
  const lora = { config: new LoRAConfig({ rank: 2 }) };
  await expect(tune("absent token", { ...lora, ...TOKEN })).rejects.toThrow(/no caption has "<sks>"/);
  const { initializeTokens: _, ...rest } = TOKEN;
  await expect(tune("no beginning", { ...lora, ...rest })).rejects.toThrow(/trainTokens needs initializeTokens/);
});

const checkpointOf = (name: string, step: number) =>
  join(dir, name, "checkpoints", `checkpoint-0000000${step}.safetensors`);
const isSame = (a: Tensor, b: Tensor) => a.data.every((value, i) => value === b.data[i]);

it("tells of experts that the energies of small latents leave closed, and how they open", async () => {
  const messages: string[] = [];
  const options = { rank: 2, router: "gates-are-energies", bands: "complete" } as const;
  const onMessage = (message: string) => void messages.push(message);
  await tune("closed", { config: new FeRAConfig(options), onMessage });
  expect(messages).toEqual([expect.stringMatching(/^Experts 2 and 3 of 3 stay closed .* sigmaDivisor (\d+) /)]);
  const divisor = Number(messages.pop()!.match(/sigmaDivisor (\d+) /)![1]);
  await tune("open", { config: new FeRAConfig({ ...options, sigma: { rule: "latent", divisor } }), onMessage });
  // A router can learn to open any.
  await tune("routed", { config: new FeRAConfig({ ...options, router: "energies" }), onMessage });
  expect(messages).toEqual([]);
});
