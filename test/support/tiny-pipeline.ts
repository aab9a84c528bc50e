// A tiny Stable Diffusion pipeline with random weights, written to a folder in diffusers' layout.

import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { trainClipVocabulary } from "../../examples/icons/bpe-trainer.js";
import { AutoencoderTiny } from "../../src/models/autoencoder-tiny/autoencoder-tiny.js";
import { CLIPTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { writeClipTokenizer } from "../../src/models/clip-tokenizer/write-clip-tokenizer.js";
import type { Model } from "../../src/models/model.js";
import { UNet2DConditionModel } from "../../src/models/unet-2d-condition/unet-2d-condition.js";
import { writeSafetensors } from "../../src/storage/index.js";
import { Generator } from "../../src/tensor/random.js";
import type { Tensor } from "../../src/tensor/tensor.js";

/** Tokens of every prompt, start and end included. */
export const TINY_TOKENS = 8;

const VAE = {
  encoder_block_out_channels: [8, 8, 8],
  decoder_block_out_channels: [8, 8, 8],
  num_encoder_blocks: [0, 1, 1],
  num_decoder_blocks: [1, 1, 0],
  latent_channels: 4,
  scaling_factor: 0.8,
  shift_factor: 0.1,
};

const SCHEDULER = {
  _class_name: "DDIMScheduler",
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  clip_sample: false,
  steps_offset: 1,
};

/** Writes the pipeline: latents 8×8, 4 pixels per latent pixel, 24 text features. */
export async function writeTinyPipeline(dir: string): Promise<void> {
  const generator = new Generator(7);
  const unetConfig = {
    ...JSON.parse(readFileSync("test/reference/unet-sd15/unet/config.json", "utf8")),
    sample_size: 8,
  };
  const { vocab, merges } = trainClipVocabulary(Array(2).fill("a red circle, a blue square"), { size: 540 });
  await writeClipTokenizer(join(dir, "tokenizer"), { vocab, merges, maxLength: TINY_TOKENS });
  const textConfig = {
    vocab_size: Object.keys(vocab).length,
    hidden_size: 24,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: TINY_TOKENS,
  };
  await writeModel(
    join(dir, "unet"),
    "diffusion_pytorch_model",
    UNet2DConditionModel.fromConfig(unetConfig, generator),
    {
      ...unetConfig,
      _class_name: "UNet2DConditionModel",
    },
  );
  await writeModel(join(dir, "vae"), "diffusion_pytorch_model", AutoencoderTiny.fromConfig(VAE, generator), {
    ...VAE,
    _class_name: "AutoencoderTiny",
  });
  await writeModel(join(dir, "text_encoder"), "model", CLIPTextModel.fromConfig(textConfig, generator), {
    ...textConfig,
    architectures: ["CLIPTextModel"],
  });
  await writeJson(join(dir, "scheduler"), "scheduler_config.json", SCHEDULER);
  await writeJson(dir, "model_index.json", TINY_INDEX);
}

/** Its model_index.json, with parts that are to be ignored. */
export const TINY_INDEX = {
  _class_name: "StableDiffusionPipeline",
  _diffusers_version: "0.21.4",
  feature_extractor: [null, null],
  requires_safety_checker: true,
  safety_checker: ["stable_diffusion", "StableDiffusionSafetyChecker"],
  scheduler: ["diffusers", "DDIMScheduler"],
  text_encoder: ["transformers", "CLIPTextModel"],
  tokenizer: ["transformers", "CLIPTokenizer"],
  unet: ["diffusers", "UNet2DConditionModel"],
  vae: ["diffusers", "AutoencoderTiny"],
};

async function writeModel(dir: string, name: string, model: Model<unknown>, config: object): Promise<void> {
  await writeJson(dir, "config.json", config);
  const tensors = new Map<string, Tensor>();
  for (const [path, weight] of model.weights.weights) if ("tensor" in weight) tensors.set(path, weight.tensor);
  await writeSafetensors(join(dir, `${name}.safetensors`), tensors);
}

async function writeJson(dir: string, name: string, value: object): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, name), JSON.stringify(value));
}
