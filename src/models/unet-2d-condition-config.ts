// The configuration of UNet2DConditionModel: the options of the Stable Diffusion 1.x, 2.x and XL families. Every other
// option, and every other value, is refused by name.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { parseConfig } from "./model.js";

const positive = z.int().positive();
const onePerBlock = z.union([positive, z.array(positive).min(1)]);

const schema = z.strictObject({
  sample_size: z.union([positive, z.array(positive), z.null()]).default(null),
  in_channels: positive.default(4),
  out_channels: positive.default(4),
  center_input_sample: z.literal(false).default(false),
  flip_sin_to_cos: z.boolean().default(true),
  freq_shift: z.number().default(0),
  down_block_types: z.array(z.enum(["CrossAttnDownBlock2D", "DownBlock2D"])).min(1),
  mid_block_type: z.literal("UNetMidBlock2DCrossAttn").default("UNetMidBlock2DCrossAttn"),
  up_block_types: z.array(z.enum(["CrossAttnUpBlock2D", "UpBlock2D"])).min(1),
  only_cross_attention: z.literal(false).default(false),
  block_out_channels: z.array(positive).min(1),
  layers_per_block: onePerBlock.default(2),
  downsample_padding: z.int().min(0).default(1),
  mid_block_scale_factor: z.literal(1).default(1),
  dropout: z.literal(0).default(0),
  act_fn: z.literal("silu").default("silu"),
  norm_num_groups: positive.default(32),
  norm_eps: z.number().positive().default(1e-5),
  cross_attention_dim: positive.default(1280),
  transformer_layers_per_block: onePerBlock.default(1),
  reverse_transformer_layers_per_block: z.null().default(null),
  encoder_hid_dim: z.null().default(null),
  encoder_hid_dim_type: z.null().default(null),
  /** Number of heads, in spite of its name: a slip of diffusers' that every checkpoint keeps. */
  attention_head_dim: onePerBlock.default(8),
  num_attention_heads: z.union([z.null(), onePerBlock]).default(null),
  dual_cross_attention: z.literal(false).default(false),
  use_linear_projection: z.boolean().default(false),
  class_embed_type: z.null().default(null),
  addition_embed_type: z.union([z.null(), z.literal("text_time")]).default(null),
  addition_time_embed_dim: z.union([z.null(), positive]).default(null),
  addition_embed_type_num_heads: z.number().default(64),
  num_class_embeds: z.null().default(null),
  upcast_attention: z.union([z.boolean(), z.null()]).default(false),
  resnet_time_scale_shift: z.literal("default").default("default"),
  resnet_skip_time_act: z.literal(false).default(false),
  resnet_out_scale_factor: z.literal(1).default(1),
  time_embedding_type: z.literal("positional").default("positional"),
  time_embedding_dim: z.union([z.null(), positive]).default(null),
  time_embedding_act_fn: z.null().default(null),
  timestep_post_act: z.null().default(null),
  time_cond_proj_dim: z.null().default(null),
  conv_in_kernel: z.literal(3).default(3),
  conv_out_kernel: z.literal(3).default(3),
  projection_class_embeddings_input_dim: z.union([z.null(), positive]).default(null),
  attention_type: z.literal("default").default("default"),
  class_embeddings_concat: z.literal(false).default(false),
  mid_block_only_cross_attention: z.union([z.null(), z.literal(false)]).default(null),
  cross_attention_norm: z.null().default(null),
});

/** A checked configuration, with the values that vary by block spelled out. */
export type UNet2DConditionConfig = z.output<typeof schema> & {
  /** Per resolution, from the outermost in. */
  blocks: { channels: number; layers: number; heads: number; transformerLayers: number }[];
};

/** Checks a `config.json`. @throws {ConfigError} That names the option. */
export function parseUNetConfig(config: unknown, source: string): UNet2DConditionConfig {
  const parsed = parseConfig(schema, config, source);
  const count = parsed.block_out_channels.length;
  for (const key of ["down_block_types", "up_block_types"] as const) {
    if (parsed[key].length !== count) {
      throw new ConfigError(
        `${source}: ${key} has ${parsed[key].length} entries, block_out_channels ${count}; they must match.`,
      );
    }
  }
  const spread = (
    key: "layers_per_block" | "transformer_layers_per_block" | "attention_head_dim" | "num_attention_heads",
  ) => {
    const value = parsed[key];
    if (!Array.isArray(value)) return new Array<number>(count).fill(value ?? 0);
    if (value.length !== count)
      throw new ConfigError(`${source}: ${key} must have ${count} entries; got ${value.length}.`);
    return value;
  };
  const heads = spread(parsed.num_attention_heads === null ? "attention_head_dim" : "num_attention_heads");
  const layers = spread("layers_per_block");
  const transformerLayers = spread("transformer_layers_per_block");
  const blocks = parsed.block_out_channels.map((channels, i) => {
    if (channels % parsed.norm_num_groups !== 0) {
      throw new ConfigError(
        `${source}: norm_num_groups=${parsed.norm_num_groups} must divide every entry of block_out_channels; got ${channels}.`,
      );
    }
    if (channels % heads[i]! !== 0) {
      throw new ConfigError(
        `${source}: attention_head_dim gives ${heads[i]} heads, which must divide ${channels} channels.`,
      );
    }
    return { channels, layers: layers[i]!, heads: heads[i]!, transformerLayers: transformerLayers[i]! };
  });
  return { ...parsed, blocks };
}
