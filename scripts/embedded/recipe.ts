// The embedded model's recipe: every number that its training depends on.

import { hasSkinTone, isFlag, isHeldOut, loadIconSet } from "../../src/training/data/icons.js";

/** Side of the drawings in pixels; latents are a quarter of it. */
export const IMAGE_SIZE = 128;
export const LATENT_SIZE = 32;
export const MAX_TOKENS = 24;
export const VOCABULARY_SIZE = 2048;
export const TEXT_FEATURES = 128;
export const SEED = 1;

export const AUTOENCODER_CONFIG = {
  in_channels: 3,
  out_channels: 3,
  encoder_block_out_channels: [32, 32, 32],
  decoder_block_out_channels: [32, 32, 32],
  num_encoder_blocks: [0, 2, 2],
  num_decoder_blocks: [2, 2, 0],
  latent_channels: 4,
};

export const UNET_CONFIG = {
  sample_size: LATENT_SIZE,
  in_channels: 4,
  out_channels: 4,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  block_out_channels: [32, 64, 128],
  layers_per_block: 1,
  norm_num_groups: 16,
  cross_attention_dim: TEXT_FEATURES,
  attention_head_dim: 4,
};

export const textEncoderConfig = (vocabularySize: number, endOfText: number) => ({
  vocab_size: vocabularySize,
  hidden_size: TEXT_FEATURES,
  intermediate_size: 4 * TEXT_FEATURES,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  max_position_embeddings: MAX_TOKENS,
  hidden_act: "quick_gelu",
  eos_token_id: endOfText,
});

export const SCHEDULER_CONFIG = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  prediction_type: "v_prediction",
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
};

/** Names of the noto drawings that are trained on: one skin tone of each, no flags, nothing held out. */
export const trainingNames = (): string[] =>
  loadIconSet("noto").names.filter((name) => !isFlag(name) && !hasSkinTone(name) && !isHeldOut(name));

/**
 * The course of the diffusion training: each stage goes on from the one before, with a schedule over `total` steps that
 * it leaves at `until`.
 */
export const STAGES = [
  {
    until: 1500,
    total: 4000,
    schedule: "cosine",
    learningRate: 1e-3,
    timestepSampling: "independent",
    timestepShift: 1,
  },
  {
    until: 2250,
    total: 4600,
    schedule: "cosine",
    learningRate: 1e-3,
    timestepSampling: "stratified",
    timestepShift: 1,
  },
  {
    until: 5000,
    total: 5000,
    schedule: "cosine",
    learningRate: 1e-3,
    timestepSampling: "stratified",
    timestepShift: 3,
  },
  {
    until: 9000,
    total: 13000,
    schedule: "cosine",
    learningRate: 1e-3,
    timestepSampling: "stratified",
    timestepShift: 6,
  },
  {
    until: 10250,
    total: 13000,
    schedule: "linear",
    learningRate: 1.6e-3,
    timestepSampling: "stratified",
    timestepShift: 6,
  },
  {
    until: 11400,
    total: 12400,
    schedule: "linear",
    learningRate: 2e-3,
    timestepSampling: "stratified",
    timestepShift: 6,
  },
  {
    until: 12400,
    total: 12400,
    schedule: "linear",
    learningRate: 2e-3,
    timestepSampling: "stratified",
    timestepShift: 3,
  },
] as const;
