// The published configurations of large denoisers, and what a step of each is: for measuring with random weights.

import type { Denoiser, DenoiserShape } from "../src/diffusion/index.js";
import { parseFluxConfig } from "../src/models/flux-transformer-2d/flux-config.js";
import { parseFlux2Config } from "../src/models/flux2-transformer-2d/flux2-config.js";
import {
  Flux2Transformer2DModel,
  FluxTransformer2DModel,
  type PretrainedOptions,
  SD3Transformer2DModel,
  UNet2DConditionModel,
  ZImageTransformer2DModel,
} from "../src/models/index.js";
import { parseSD3Config } from "../src/models/sd3-transformer-2d/sd3-config.js";
import { parseUNetConfig } from "../src/models/unet-2d-condition/unet-config.js";
import { parseZImageConfig } from "../src/models/z-image-transformer-2d/z-image-config.js";
import { ModelWeights, type Weight } from "../src/nn/index.js";
import { NO_WEIGHTS, nowhere, type Parameter, parametersOf } from "./model-parameters.js";

/** A published denoiser. */
export interface RealModel {
  /** Its folder in a pipeline's. */
  subfolder: "transformer" | "unet";
  /** `config.json`. */
  config: Readonly<Record<string, unknown>>;
  load(dir: string, options: PretrainedOptions): Promise<Denoiser>;
  make(config: object, weights: ModelWeights): Denoiser;
  /** Text tokens of a usual prompt. */
  tokens: number;
}

/** By the names that the bench has for them. */
export const REAL_MODELS = {
  klein: {
    subfolder: "transformer",
    config: {
      _class_name: "Flux2Transformer2DModel",
      ...{ in_channels: 128, patch_size: 1, num_layers: 5, num_single_layers: 20 },
      ...{ num_attention_heads: 24, attention_head_dim: 128, joint_attention_dim: 7680, mlp_ratio: 3 },
      ...{ axes_dims_rope: [32, 32, 32, 32], rope_theta: 2000, guidance_embeds: false, eps: 1e-6 },
    },
    load: (dir, options) => Flux2Transformer2DModel.fromPretrained(dir, options),
    make: (config, weights) => new Flux2Transformer2DModel(parseFlux2Config(config, "klein"), weights),
    tokens: 512,
  },
  "sd35-medium": {
    subfolder: "transformer",
    config: {
      _class_name: "SD3Transformer2DModel",
      ...{ sample_size: 128, patch_size: 2, in_channels: 16, out_channels: 16, num_layers: 24 },
      ...{ num_attention_heads: 24, attention_head_dim: 64, caption_projection_dim: 1536 },
      ...{ joint_attention_dim: 4096, pooled_projection_dim: 2048, pos_embed_max_size: 384 },
      ...{ dual_attention_layers: Array.from({ length: 13 }, (_, layer) => layer), qk_norm: "rms_norm" },
    },
    load: (dir, options) => SD3Transformer2DModel.fromPretrained(dir, options),
    make: (config, weights) => new SD3Transformer2DModel(parseSD3Config(config, "sd35-medium"), weights),
    tokens: 77 + 256,
  },
  "z-image": {
    subfolder: "transformer",
    config: {
      _class_name: "ZImageTransformer2DModel",
      ...{ all_patch_size: [2], all_f_patch_size: [1], in_channels: 16, dim: 3840, n_layers: 30 },
      ...{ n_refiner_layers: 2, n_heads: 30, n_kv_heads: 30, norm_eps: 1e-5, qk_norm: true, cap_feat_dim: 2560 },
      ...{ rope_theta: 256, t_scale: 1000, axes_dims: [32, 48, 48], axes_lens: [1536, 512, 512] },
    },
    load: (dir, options) => ZImageTransformer2DModel.fromPretrained(dir, options),
    make: (config, weights) => new ZImageTransformer2DModel(parseZImageConfig(config, "z-image"), weights),
    tokens: 64,
  },
  flux1: {
    subfolder: "transformer",
    config: {
      _class_name: "FluxTransformer2DModel",
      ...{ in_channels: 64, patch_size: 1, num_layers: 19, num_single_layers: 38, num_attention_heads: 24 },
      ...{ attention_head_dim: 128, joint_attention_dim: 4096, pooled_projection_dim: 768, guidance_embeds: true },
    },
    load: (dir, options) => FluxTransformer2DModel.fromPretrained(dir, options),
    make: (config, weights) => new FluxTransformer2DModel(parseFluxConfig(config, "flux1"), weights),
    tokens: 512,
  },
  sdxl: {
    subfolder: "unet",
    config: {
      _class_name: "UNet2DConditionModel",
      ...{ sample_size: 128, in_channels: 4, out_channels: 4, block_out_channels: [320, 640, 1280] },
      down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
      ...{ layers_per_block: 2, transformer_layers_per_block: [1, 2, 10], attention_head_dim: [5, 10, 20] },
      ...{ cross_attention_dim: 2048, use_linear_projection: true, addition_embed_type: "text_time" },
      ...{ addition_time_embed_dim: 256, projection_class_embeddings_input_dim: 2816 },
    },
    load: (dir, options) => UNet2DConditionModel.fromPretrained(dir, options),
    make: (config, weights) => new UNet2DConditionModel(parseUNetConfig(config, "sdxl"), weights),
    tokens: 77,
  },
} as const satisfies Record<string, RealModel>;

export type RealModelName = keyof typeof REAL_MODELS;

export const REAL_MODEL_NAMES = Object.keys(REAL_MODELS) as RealModelName[];

/** What a published model asks its weights for. */
export const realParameters = ({ config, make }: RealModel): Parameter[] => parametersOf(make(config, NO_WEIGHTS));

/** A model that can be built and counted, not run. */
export function withoutWeights(real: RealModel): Denoiser {
  const weights = realParameters(real).map(({ name, shape }): [string, Weight] => [
    name,
    { shape, dtype: "float32", range: nowhere(shape) },
  ]);
  return real.make(real.config, new ModelWeights(new Map(weights), "no weights"));
}

/** A batch of one image of that many pixels along a side. */
export const shapeOf = (pixels: number, { tokens }: RealModel): DenoiserShape => ({
  batchSize: 1,
  latentHeight: pixels / 8,
  latentWidth: pixels / 8,
  tokens,
});
