import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import {
  type AdapterConfig,
  AdapterModel,
  DoRAConfig,
  FeRAConfig,
  FeRAModel,
  graphAdapters,
  LoKrConfig,
  LoRAConfig,
  readAdapter,
  TLoRAConfig,
} from "../../adapters/index.js";
import type { TrainStepInputs } from "../../adapters/train-step-options.js";
import "../../index.js";
import { StableDiffusionPipeline, StableDiffusionXLPipeline, type UNetPipeline } from "../../pipelines/index.js";
import { readSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { OptimizerStep } from "../optimizer-step.js";
import { gradientNorm } from "../optimizers/gradient-clipping.js";
import { AdamW } from "../optimizers/index.js";
import { SavedModel } from "../saved-model.js";
import { TEXT_ENCODER_TARGETS, textEncoderConfig } from "./text-encoder-config.js";
import { isOfText } from "./text-encoders.js";
import { TextTraining } from "./text-training.js";

const GRADIENT_TOLERANCE = 2e-3;
const TRAINED_TOLERANCE = 2e-3;
const STATES_TOLERANCE = 1e-5;
const LOSS_TOLERANCE = 1e-5;
/** Central differences of a float32 loss. */
const DIFFERENCE = 1e-2;
const DIFFERENCE_TOLERANCE = 5e-3;

let sd: StableDiffusionPipeline;
let xl: StableDiffusionXLPipeline;
let dir: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-text-"));
  sd = await StableDiffusionPipeline.fromPretrained("test/reference/pipeline-tiny");
  xl = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
});
afterAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  await sd.release();
  await xl.release();
});

const drawn = (shape: number[], seed: number) => randn(shape, { generator: new Generator(seed) });

/** Makes every tensor that begins as 0 something else. */
function perturb(parameters: ReadonlyMap<string, Tensor<"float32">>): void {
  let seed = 100;
  for (const { data, size } of parameters.values()) {
    const noise = drawn([size], seed++).data;
    if (data.every((value) => value === 0)) data.set(noise.map((value) => 0.3 * value));
  }
}

async function trainingOf(pipeline: UNetPipeline, config: AdapterConfig) {
  const denoiser =
    config instanceof FeRAConfig
      ? new FeRAModel(pipeline.denoiser, config)
      : await AdapterModel.create(pipeline.denoiser, config);
  const text = await TextTraining.create({
    ...{ pipeline, denoiser },
    config: textEncoderConfig(config, TEXT_ENCODER_TARGETS),
  });
  perturb(text.parameters);
  return { denoiser, text };
}

/** Two noisy latents with their prompts, the second of them none at all. */
function batchOf(pipeline: UNetPipeline, size = 4): TrainStepInputs & { inputIds: Tensor } {
  const prompts = ["a red circle", ""];
  const isXl = pipeline instanceof StableDiffusionXLPipeline;
  return {
    latents: drawn([2, 4, size, size], 1),
    timesteps: tensor([17, 803], [2], "int64"),
    target: drawn([2, 4, size, size], 2),
    inputIds: pipeline.tokenizer.encodeBatch(prompts).ids,
    ...(isXl && {
      inputIds2: pipeline.tokenizer2.encodeBatch(prompts).ids,
      timeIds: drawn([2, 6], 3),
      hasText: tensor([1, 0], [2]),
    }),
  };
}

const SHAPE = { batchSize: 2, latentHeight: 4, latentWidth: 4 };

describe.each(["sd", "xl", "tokens"])("training text encoders as PEFT trains transformers': %s", (name) => {
  it("the same states, gradients, losses over eight steps of AdamW at two rates with a stop, and trained tensors", async () => {
    const { tensors, metadata } = await readSafetensors(`test/reference/text-training/${name}.safetensors`);
    const value = (key: string) => tensors.get(key)!;
    const { r: rank, lora_alpha: alpha, target_modules: targetModules } = JSON.parse(metadata.config!);
    const { lr, betas, eps, weight_decay: weightDecay } = JSON.parse(metadata.optimizer!);
    const [textLr, stop, textTargets] = [metadata.text_lr, metadata.stop, metadata.text_targets].map((each) =>
      JSON.parse(each!),
    );
    const pipeline = name === "xl" ? xl : sd;
    const config = new LoRAConfig({ rank, alpha, targetModules });
    const denoiser = new AdapterModel(pipeline.denoiser, config);
    const isOfTokens = name === "tokens";
    if (isOfTokens) sd.textEncoder.addedVectors = value("initial.text_encoder.token_vectors") as Tensor<"float32">;
    const text = await TextTraining.create({
      ...{ pipeline, denoiser },
      ...(isOfTokens ? { trainsVectors: true } : { config: textEncoderConfig(config, textTargets) }),
    });
    const initial = [...tensors.keys()].filter((key) => key.startsWith("initial."));
    expect([...text.parameters.keys()].map((key) => `initial.${key}`).sort()).toEqual(initial.sort());
    for (const [key, parameter] of text.parameters) parameter.data.set(value(`initial.${key}`).data as Float32Array);

    const [batchSize, , latentHeight, latentWidth] = value("latents").shape as [number, number, number, number];
    const batch = {
      ...{ latents: value("latents"), timesteps: value("timesteps"), target: value("target") },
      inputIds: value("input_ids"),
      ...(name === "xl" && {
        inputIds2: value("input_ids_2"),
        timeIds: value("time_ids"),
        hasText: tensor([1, 1], [2]),
      }),
    };
    const adaptersOf = (encoder: number) => {
      const part = text.attachable().get(encoder);
      return part && graphAdapters([{ ...part, scale: 1 }]);
    };
    const told = (await text.model.encoded(batch, adaptersOf)) as unknown as Record<string, Tensor<"float32">>;
    const states = value("states").data as Float32Array;
    expect(relativeError(told.encoderHiddenStates!.data, states)).toBeLessThan(STATES_TOLERANCE);
    if (name === "xl") {
      expect(relativeError(told.textEmbeds!.data, value("pooled").data as Float32Array)).toBeLessThan(STATES_TOLERANCE);
    }

    const step = await text.compileTrainStep({ batchSize, latentHeight, latentWidth, tokens: 16 });
    const { gradients } = await step.compute(batch);
    for (const [key, gradient] of gradients) {
      const error = relativeError(gradient, value(`grad.${key}`).data as Float32Array);
      expect(error, `gradient of ${key}`).toBeLessThan(GRADIENT_TOLERANCE);
    }
    const optimizer = new AdamW({ lr, betas, eps, weightDecay });
    const rateOf = (key: string) => (isOfText(key) ? textLr / lr : 1);
    const steps = new OptimizerStep<TrainStepInputs>({ trainable: step, optimizer, rateOf });
    for (const [i, loss] of (value("losses").data as Float32Array).entries()) {
      const isFrozen = i >= stop ? isOfText : undefined;
      const { losses } = await steps.run([batch], { name: "step", advice: () => "", isFrozen });
      expect(Math.abs(losses.loss / loss - 1)).toBeLessThan(LOSS_TOLERANCE);
    }
    for (const [key, { data }] of text.parameters) {
      expect(relativeError(data, value(`trained.${key}`).data as Float32Array), key).toBeLessThan(TRAINED_TOLERANCE);
    }
    await step.release();
    sd.textEncoder.addedVectors = undefined;
    await sd.release();
  });
});

describe("a step with text encoders", () => {
  it.each([
    ["FeRA with the consistency loss", () => sd, new FeRAConfig({ rank: 2, feclWeight: 0.5 })],
    ["SDXL, where an empty caption is no text", () => xl, new LoRAConfig({ rank: 2 })],
    ["T-LoRA", () => sd, new TLoRAConfig({ rank: 4 })],
    ["LoKr", () => sd, new LoKrConfig({ rank: 2, factor: 4 })],
  ] as const)("has the gradients of its loss: %s", async (_, pipelineOf, config) => {
    const pipeline = pipelineOf();
    const { text } = await trainingOf(pipeline, config);
    const step = await text.compileTrainStep({ ...SHAPE, tokens: pipeline.tokenizer.maxLength });
    const batch = batchOf(pipeline);
    const { gradients } = await step.compute(batch);
    for (const isMoved of [isOfText, (name: string) => !isOfText(name)]) {
      const own = new Map([...gradients].filter(([name]) => isMoved(name)));
      expect([...own.values()].every((gradient) => gradient.some((value) => value !== 0))).toBe(true);
      const norm = gradientNorm(own);
      const lossAt = async (distance: number): Promise<number> => {
        const move = (by: number) => {
          for (const [name, gradient] of own) {
            const { data } = text.parameters.get(name)!;
            for (let i = 0; i < data.length; i++) data[i] = data[i]! + (by / norm) * gradient[i]!;
          }
        };
        move(distance);
        const { loss } = await step.evaluate(batch);
        move(-distance);
        return loss;
      };
      const distance = Math.min(DIFFERENCE, (0.1 * DIFFERENCE) / norm);
      const measured = ((await lossAt(distance)) - (await lossAt(-distance))) / (2 * distance);
      expect(Math.abs(norm / measured - 1)).toBeLessThan(DIFFERENCE_TOLERANCE);
    }
    await step.release();
  });

  // Its gradient takes the norm for a constant, and is not that of the loss.
  it("lowers the loss with DoRA", async () => {
    const { text } = await trainingOf(sd, new DoRAConfig({ rank: 2 }));
    const step = await text.compileTrainStep({ ...SHAPE, tokens: 16, optimizer: new AdamW({ lr: 1e-3 }) });
    const { loss } = await step.run(batchOf(sd));
    expect((await step.evaluate(batchOf(sd))).loss).toBeLessThan(loss);
    await step.release();
  });

  it("refuses a batch with text states in place of token ids", async () => {
    const { text } = await trainingOf(sd, new LoRAConfig({ rank: 2 }));
    const step = await text.compileTrainStep({ ...SHAPE, tokens: 16 });
    const { inputIds: _, ...batch } = batchOf(sd);
    await expect(step.compute({ ...batch, encoderHiddenStates: drawn([2, 16, 24], 1) })).rejects.toThrow(
      /inputIds must be \[B,T\]; got none/,
    );
    await step.release();
  });
});

describe("what FeRA's text encoders get", () => {
  it("is what FeRA computes at uniform gates", () => {
    const config = textEncoderConfig(new FeRAConfig({ rank: 2, numExperts: 3, alpha: 1.5 }), ["q_proj"]) as LoRAConfig;
    expect(config).toBeInstanceOf(LoRAConfig);
    expect(config.rank).toBe(6);
    expect(config.scaleOf("text_model.encoder.layers.0.self_attn.q_proj")).toBeCloseTo(1.5 / 2 / 3, 12);
  });
});

describe("a file with text encoders", () => {
  it.each([
    ["LoRA in kohya's names", () => sd, new LoRAConfig({ rank: 2, alpha: 3 }), /^lora_te_text_model_/],
    ["LoRA of SDXL", () => xl, new LoRAConfig({ rank: 2 }), /^lora_te[12]_text_model_/],
    ["DoRA", () => sd, new DoRAConfig({ rank: 2 }), /^lora_te_text_model_.*dora_scale$/],
    ["LoKr", () => sd, new LoKrConfig({ rank: 2, factor: 4 }), /^lora_te_text_model_.*lokr_w1$/],
    ["FeRA", () => sd, new FeRAConfig({ rank: 2 }), /^text_encoder\.text_model\..*lora_A\.weight$/],
    ["T-LoRA", () => sd, new TLoRAConfig({ rank: 4 }), /^text_encoder\.text_model\..*lora_A\.weight$/],
  ] as const)(
    "says all that was trained, and a pipeline draws with it: %s",
    async (name, pipelineOf, config, names) => {
      const pipeline = pipelineOf();
      const { denoiser, text } = await trainingOf(pipeline, config);
      const path = join(dir, `${name}.safetensors`);
      await denoiser.saveAdapters(path, { textEncoders: text.fileParts() });
      const { tensors } = await readSafetensors(path);
      expect([...tensors.keys()].some((key) => names.test(key))).toBe(true);
      const loaded = await readAdapter(path);
      expect(loaded.textEncoders?.size).toBe(pipeline.textEncoders.length);

      const options = { prompt: "a red circle", seed: 1, steps: 2, width: 32, height: 32 };
      new SavedModel(denoiser, undefined, text).useIn(pipeline);
      const trained = await pipeline.generate(options);
      pipeline.useAdapters(denoiser, { textEncoders: new Map() });
      const withoutText = await pipeline.generate(options);
      await pipeline.loadAdapters(path);
      const fromFile = await pipeline.generate(options);
      pipeline.unloadAdapters();
      expect(relativeError(fromFile.latents.data, trained.latents.data)).toBeLessThan(1e-5);
      expect(relativeError(withoutText.latents.data, trained.latents.data)).toBeGreaterThan(1e-4);
    },
  );

  it("is refused where the format has no room for them", async () => {
    const { denoiser, text } = await trainingOf(sd, new LoRAConfig({ rank: 2 }));
    const textEncoders = text.fileParts();
    await expect(denoiser.saveAdapters(join(dir, "peft"), { textEncoders })).rejects.toThrow(
      /PEFT's folder cannot hold/,
    );
    const fera = await trainingOf(sd, new FeRAConfig({ rank: 2 }));
    await expect(
      fera.denoiser.saveAdapters(join(dir, "own.pt"), { textEncoders: fera.text.fileParts() }),
    ).rejects.toThrow(/a \.pt file cannot hold/);
  });
});
