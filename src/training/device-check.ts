// A training step of Stable Diffusion's real shapes, without its weights: for what is to be known of a graph alone.

import { AdapterModel, FeRAConfig } from "../adapters/index.js";
import { Graph } from "../graph/index.js";
import { STABLE_DIFFUSION_1_CONFIG } from "../models/single-file/stable-diffusion-1-config.js";
import { weightlessUNet } from "../models/unet-2d-condition/weightless-unet.js";
import { type Fallbacks, operatorFallbacks } from "../runtime/index.js";
import { AdamW } from "./optimizers/index.js";
import { buildDeviceStep } from "./step-graph.js";

/** Of SDXL's UNet, in diffusers' keys; what is left out has its default value. */
const SDXL_UNET = {
  sample_size: 128,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  block_out_channels: [320, 640, 1280],
  transformer_layers_per_block: [1, 2, 10],
  attention_head_dim: [5, 10, 20],
  cross_attention_dim: 2048,
  use_linear_projection: true,
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: 2816,
};

/** Models whose step can be looked at, and the side of the latents that they are trained at. */
export const CHECKED_MODELS = {
  "Stable Diffusion 1.5": { config: STABLE_DIFFUSION_1_CONFIG.unet, latentSide: 64 },
  SDXL: { config: SDXL_UNET, latentSide: 128 },
} as const;

export type CheckedModel = keyof typeof CHECKED_MODELS;

/** Which operators of the whole step (FeRA, its losses and gradients, AdamW) would run on the CPU, by provider. */
export async function trainStepFallbacks(name: CheckedModel): Promise<Fallbacks[]> {
  const { config, latentSide } = CHECKED_MODELS[name];
  const model = weightlessUNet(config);
  const { adapter } = await AdapterModel.create(model, new FeRAConfig());
  const graph = new Graph();
  const shape = { batchSize: 1, latentHeight: latentSide, latentWidth: latentSide, tokens: 77 };
  buildDeviceStep(graph, { model, adapter, shape }, { optimizer: new AdamW({ lr: 1e-4 }) });
  return operatorFallbacks(graph);
}
