import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TINY_TOKENS, writeTinyPipeline } from "../../../test/support/tiny-pipeline.js";
import { ConfigError, RuntimeError, ShapeError } from "../../errors.js";
import "../../storage/node.js";
import { FeRAConfig, FeRAModel } from "../../adapters/index.js";
import { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import "../../runtime/node.js";
import { DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler } from "../../schedulers/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { GenerationStep } from "../denoise.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";

/** Batches of other sizes may be summed in another order. */
const BATCH_TOLERANCE = 1e-5;
const PROMPT = "a red circle";
const BETAS = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };

let dir: string;
let pipe: StableDiffusionPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-pipeline-"));
  await writeTinyPipeline(dir);
  pipe = await StableDiffusionPipeline.fromPretrained(dir);
});

afterAll(async () => {
  await pipe?.release();
  await rm(dir, { recursive: true, force: true });
});

const difference = (a: Tensor, b: Tensor): number => {
  expect(a.shape).toEqual(b.shape);
  let largest = 0;
  for (let i = 0; i < a.size; i++) largest = Math.max(largest, Math.abs(Number(a.data[i]) - Number(b.data[i])));
  return largest;
};
const generate = (options: Partial<Parameters<StableDiffusionPipeline["generate"]>[0]> = {}) =>
  pipe.generate({ prompt: PROMPT, steps: 3, seed: 1, ...options });

describe("generate", () => {
  it("gives images of the model's size in -1 to 1, the latents and the seed", async () => {
    const { images, latents, seed, route } = await pipe.generate({ prompt: PROMPT, steps: 2 });
    expect(pipe.latentScale).toBe(4);
    expect(pipe.defaultSize).toBe(32);
    expect(images.map(({ shape }) => shape)).toEqual([[3, 32, 32]]);
    expect(latents.shape).toEqual([1, 4, 8, 8]);
    expect(images[0]!.data.every((value) => value >= -1 && value <= 1)).toBe(true);
    expect(new Set(images[0]!.data).size).toBeGreaterThan(100);
    expect(Number.isSafeInteger(seed)).toBe(true);
    expect(route).toBeUndefined();
    const again = await pipe.generate({ prompt: PROMPT, steps: 2, seed });
    expect(again.images).toEqual(images);
  });

  it("decodes the latents, unscaled and shifted back", async () => {
    const { images, latents } = await generate({ steps: 1 });
    const z = tensor(
      latents.data.map((value) => value / 0.8 + 0.1),
      latents.shape,
    );
    const decoded = (await pipe.vae.decode(z)).data.map((value) => Math.min(Math.max(value, -1), 1));
    expect(difference(images[0]!, tensor(decoded, [3, 32, 32]))).toBeLessThan(BATCH_TOLERANCE);
  });

  it("gives another image for another seed, prompt, guidance, or negative prompt", async () => {
    const first = (await generate()).images[0]!;
    for (const options of [
      { seed: 2 },
      { prompt: "a blue square" },
      { guidanceScale: 1 },
      { guidanceScale: 5 },
      { negativePrompt: "blue" },
    ]) {
      expect(difference((await generate(options)).images[0]!, first)).toBeGreaterThan(1e-4);
    }
  });

  it("ignores the negative prompt without guidance", async () => {
    const plain = await generate({ guidanceScale: 1 });
    expect((await generate({ guidanceScale: 1, negativePrompt: "blue" })).images).toEqual(plain.images);
  });

  it("starts from the seed's first draw and moves with classifier-free guidance", async () => {
    const scale = 3;
    const { latents } = await generate({ steps: 1, guidanceScale: scale });
    const noise = randn([1, 4, 8, 8], { generator: new Generator(1) });
    pipe.scheduler.setTimesteps(1);
    const t = pipe.scheduler.timesteps[0]!;
    const predict = async (prompt: string) => {
      const encoderHiddenStates = await pipe.encodePrompt([prompt]);
      return pipe.unet.predict({ latents: noise, timesteps: tensor([t]), encoderHiddenStates });
    };
    const [away, towards] = [await predict(""), await predict(PROMPT)];
    const guided = tensor(
      away.data.map((from, i) => from + scale * (towards.data[i]! - from)),
      noise.shape,
    );
    expect(difference(latents, pipe.scheduler.step(guided, t, noise).prevSample)).toBeLessThan(BATCH_TOLERANCE);
  });

  it("gives the same images for a batch of prompts as for each alone", async () => {
    const prompts = [PROMPT, "a blue square"];
    const negatives = ["blue", ""];
    const latents = randn([2, 4, 8, 8], { generator: new Generator(1) });
    const batch = await generate({ prompt: prompts, negativePrompt: negatives });
    expect(batch.images).toHaveLength(2);
    for (const [i, prompt] of prompts.entries()) {
      const own = tensor(latents.data.slice(i * 256, (i + 1) * 256), [1, 4, 8, 8]);
      const single = await generate({ prompt, negativePrompt: negatives[i]!, latents: own });
      expect(difference(batch.images[i]!, single.images[0]!)).toBeLessThan(BATCH_TOLERANCE);
    }
  });

  it("makes several images per prompt, neighbours, and decodes more than one batch of them", async () => {
    const several = await generate({ prompt: [PROMPT, "a blue square"], numImages: 3, steps: 2 });
    expect(several.images).toHaveLength(6);
    const single = await generate({ steps: 2 });
    expect(difference(several.images[0]!, single.images[0]!)).toBeLessThan(BATCH_TOLERANCE);
    const latents = tensor(randn([6, 4, 8, 8], { generator: new Generator(1) }).data.slice(5 * 256), [1, 4, 8, 8]);
    const last = await generate({ prompt: "a blue square", steps: 2, latents });
    expect(difference(several.images[5]!, last.images[0]!)).toBeLessThan(BATCH_TOLERANCE);
  });

  it("makes images that are not square, also of odd latent sizes", async () => {
    const { images, latents } = await generate({ width: 44, height: 20, steps: 1 });
    expect(latents.shape).toEqual([1, 4, 5, 11]);
    expect(images[0]!.shape).toEqual([3, 20, 44]);
  });

  it("works with samplers that scale their input, add noise, or visit a timestep twice", async () => {
    for (const scheduler of [
      new EulerDiscreteScheduler(BETAS),
      new DDPMScheduler({ ...BETAS, clip_sample: false }),
      new PNDMScheduler({ ...BETAS, skip_prk_steps: true }),
    ]) {
      const first = await generate({ scheduler, steps: 4 });
      expect((await generate({ scheduler, steps: 4 })).images).toEqual(first.images);
    }
  });

  it("reports every step and waits for the report", async () => {
    const steps: GenerationStep[] = [];
    let waiting = 0;
    await generate({
      onStep: async (step) => {
        expect(waiting++).toBe(0);
        await new Promise((resolve) => setTimeout(resolve, 5));
        waiting--;
        steps.push(step);
      },
    });
    expect(steps.map(({ step, steps: total }) => [step, total])).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
    expect(steps.map(({ timestep }) => timestep)).toEqual(pipe.scheduler.timesteps);
    expect(steps[2]!.latents.shape).toEqual([1, 4, 8, 8]);
  });

  it("runs calls that overlap one after the other", async () => {
    const [first, second] = await Promise.all([generate({ steps: 2 }), generate({ steps: 3 })]);
    expect((await generate({ steps: 2 })).images).toEqual(first.images);
    expect((await generate({ steps: 3 })).images).toEqual(second.images);
  });

  it("ends with an AbortError, and works again afterwards", async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const run = generate({
      signal: controller.signal,
      onStep: ({ step }) => {
        seen.push(step);
        controller.abort();
      },
    });
    await expect(run).rejects.toMatchObject({ name: "AbortError", code: DOMException.ABORT_ERR });
    expect(seen).toEqual([1]);
    await expect(generate({ signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
    expect((await generate()).images).toHaveLength(1);
  });
});

describe("what generate refuses", () => {
  it.each([
    [
      "a width that is no multiple of the scale",
      { width: 30 },
      ShapeError,
      /width must be a positive multiple of 4.*28 and 32/,
    ],
    ["a height of 0", { height: 0 }, ShapeError, /height must be a positive multiple of 4.*got 0/],
    [
      "latents of another shape",
      { latents: tensor(new Float32Array(4), [1, 4, 1, 1]), width: 8 },
      ShapeError,
      /\[1,4,1,2\]/,
    ],
    ["no prompts", { prompt: [] }, ConfigError, /prompt must be a text/],
    ["0 steps", { steps: 0 }, ConfigError, /steps must be a positive integer; got 0/],
    ["half an image", { numImages: 0.5 }, ConfigError, /numImages must be a positive integer/],
    ["guidance that is no number", { guidanceScale: Number.NaN }, ConfigError, /guidanceScale/],
    ["a seed that is no integer", { seed: 0.5 }, ConfigError, /seed must be an integer/],
    ["too many negative prompts", { negativePrompt: ["a", "b"] }, ConfigError, /one per prompt; got 2 for 1/],
  ])("%s", async (_, options, kind, message) => {
    const run = generate(options);
    await expect(run).rejects.toBeInstanceOf(kind);
    await expect(run).rejects.toThrow(message);
  });

  it("a prompt that is too long, naming what does not fit", async () => {
    const fits = Array(TINY_TOKENS - 2)
      .fill("a")
      .join(" ");
    await expect(pipe.encodePrompt([fits])).resolves.toMatchObject({ shape: [1, TINY_TOKENS, 24] });
    const run = generate({ prompt: `${fits} red circle` });
    await expect(run).rejects.toBeInstanceOf(ConfigError);
    await expect(run).rejects.toThrow(/longer than the 6 tokens.*"red circle" does not fit/);
  });

  it("predictions that are not finite", async () => {
    const latents = tensor(new Float32Array(256).fill(Number.NaN), [1, 4, 8, 8]);
    await expect(generate({ latents })).rejects.toBeInstanceOf(RuntimeError);
  });

  it("parts that do not fit each other", () => {
    const { unet, vae, textEncoder, tokenizer, scheduler } = pipe;
    const wide = CLIPTextModel.fromConfig({ ...textEncoder.config, hidden_size: 32 }, new Generator(0));
    expect(() => new StableDiffusionPipeline({ unet, vae, textEncoder: wide, tokenizer, scheduler })).toThrow(
      /cross_attention_dim must be the text encoder's hidden_size; got 24 and 32/,
    );
    const poor = CLIPTextModel.fromConfig({ ...textEncoder.config, vocab_size: 100 }, new Generator(0));
    expect(() => new StableDiffusionPipeline({ unet, vae, textEncoder: poor, tokenizer, scheduler })).toThrow(
      /vocab_size is 100/,
    );
  });
});

describe("adapters", () => {
  const adapters = async (name: string, fill: (index: number) => number): Promise<string> => {
    const fera = new FeRAModel(pipe.unet, new FeRAConfig({ rank: 2, numExperts: 3, numBands: 2 }));
    const state = fera.stateDict();
    for (const [key, { data }] of state) if (key.includes("lora_up")) data.set(data.map((_, i) => fill(i)));
    fera.loadStateDict(state);
    const path = join(dir, name);
    await fera.saveAdapters(path);
    return path;
  };

  it("whose lora_up is 0 leave the image as it is", async () => {
    const base = await generate();
    await pipe.loadAdapters(await adapters("zero.safetensors", () => 0));
    const adapted = await generate();
    expect(difference(adapted.images[0]!, base.images[0]!)).toBeLessThan(BATCH_TOLERANCE);
    pipe.unloadAdapters();
  });

  it("change the image as far as the scale says, until they are unloaded", async () => {
    const base = await generate();
    await pipe.loadAdapters(await adapters("some.safetensors", (i) => Math.sin(i)));
    expect(pipe.fera?.config.numBands).toBe(2);
    const full = await generate();
    const fromBase = difference(full.images[0]!, base.images[0]!);
    expect(fromBase).toBeGreaterThan(1e-3);
    pipe.setAdapterScale(0.01);
    const weak = difference((await generate()).images[0]!, base.images[0]!);
    expect(weak).toBeGreaterThan(0);
    expect(weak).toBeLessThan(fromBase / 5);
    pipe.setAdapterScale(0);
    expect(difference((await generate()).images[0]!, base.images[0]!)).toBeLessThan(BATCH_TOLERANCE);
    pipe.setAdapterScale(1);
    const without = await generate({ adapters: false });
    expect(without.images).toEqual(base.images);
    expect(without.route).toBeUndefined();
    pipe.unloadAdapters();
    expect(pipe.fera).toBeUndefined();
    expect((await generate()).images).toEqual(base.images);
  });

  it("are mixed anew at every step, and the route says how", async () => {
    await pipe.loadAdapters(await adapters("some.safetensors", (i) => Math.sin(i)));
    const inputs: Tensor[] = [randn([2, 4, 8, 8], { generator: new Generator(1) })];
    const { route } = await generate({ numImages: 2, onStep: ({ latents }) => void inputs.push(latents) });
    expect(route!.timesteps).toEqual(pipe.scheduler.timesteps);
    expect(route!.weights).toBe(route!.gates);
    for (const table of [route!.energies, route!.gates]) {
      expect(table).toHaveLength(3);
      for (const row of table.flat()) expect(row.reduce((sum, value) => sum + value)).toBeCloseTo(1, 5);
    }
    expect(route!.energies.map((step) => step.map((row) => row.length))).toEqual(Array(3).fill([2, 2]));
    expect(route!.gates.map((step) => step.map((row) => row.length))).toEqual(Array(3).fill([3, 3]));
    for (const [step, latents] of inputs.slice(0, 3).entries()) {
      const { energies } = await pipe.fera!.route(latents);
      expect(difference(tensor(route!.energies[step]!.flat(), energies.shape), energies)).toBeLessThan(1e-6);
    }
    pipe.unloadAdapters();
  });

  it("stay with a run that was asked for before they were unloaded", async () => {
    await pipe.loadAdapters(await adapters("some.safetensors", (i) => Math.sin(i)));
    const adapted = await generate();
    const run = generate();
    pipe.unloadAdapters();
    expect((await run).images).toEqual(adapted.images);
    expect((await generate()).route).toBeUndefined();
  });

  it("of a model that is being trained can be used, and stay its own", async () => {
    const fera = new FeRAModel(pipe.unet, new FeRAConfig({ rank: 2 }));
    pipe.useAdapters(fera);
    expect(pipe.fera).toBe(fera);
    expect((await generate()).route).toBeDefined();
    pipe.useAdapters(undefined);
    expect((await generate()).route).toBeUndefined();
    await fera.release();
  });

  it("of another UNet, or from no file, are refused and those in use stay", async () => {
    await pipe.loadAdapters(await adapters("some.safetensors", (i) => Math.sin(i)));
    const inUse = pipe.fera;
    const other = UNet2DConditionModel.fromConfig(pipe.unet.config, new Generator(0));
    expect(() => pipe.useAdapters(new FeRAModel(other))).toThrow(/this pipeline's own UNet2DConditionModel/);
    await expect(pipe.loadAdapters(join(dir, "none.safetensors"))).rejects.toThrow(/none\.safetensors/);
    expect(pipe.fera).toBe(inUse);
    expect(() => pipe.setAdapterScale(Number.NaN)).toThrow(ConfigError);
    pipe.unloadAdapters();
  });
});

describe("the end of a pipeline's use", () => {
  it("frees what was compiled, and what comes from it can be compiled again", async () => {
    expect(typeof pipe[Symbol.asyncDispose]).toBe("function");
    const { images } = await generate();
    await pipe[Symbol.asyncDispose]();
    expect((await generate()).images).toEqual(images);
    await pipe.dispose();
  });

  it("rejects with the signal's own reason where there is one", async () => {
    const reason = new Error("enough");
    await expect(generate({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const aborted = await generate({ signal: AbortSignal.abort() }).catch((error: unknown) => error);
    expect(aborted).toBeInstanceOf(DOMException);
  });

  it("reports every part of the work in order", async () => {
    const seen: string[] = [];
    const onProgress = ({ phase, done, total }: { phase: string; done: number; total: number }) =>
      void seen.push(`${phase} ${done}/${total}`);
    const { images } = await generate({ steps: 2, numImages: 5, onProgress });
    expect(seen).toEqual(["text 1/1", "sampling 1/2", "sampling 2/2", "decoding 4/5", "decoding 5/5"]);
    await generate({ steps: 2, strength: 0.5, image: images[0], onProgress });
    expect(seen.slice(5)).toEqual(["text 1/1", "image 1/1", "sampling 1/1", "decoding 1/1"]);
    expect(images[0]!.width).toBe(32);
  });
});
