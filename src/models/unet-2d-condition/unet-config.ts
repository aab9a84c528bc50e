// The configuration of UNet2DConditionModel: the options of the Stable Diffusion 1.x, 2.x and XL families, their
// inpainting, upscaling, unCLIP and distilled members included. Every other option, and every other value, is refused
// by name.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import { depth, MAX_LEVELS, side, width } from "../config-limits.js";

const layers = depth.min(1);
const transformers = z
  .array(z.union([depth, z.array(depth).max(1001)]))
  .min(1)
  .max(MAX_LEVELS);

const schema = z.strictObject({
  sample_size: z.union([side, z.array(side).length(2), z.null()]).default(null),
  in_channels: width.default(4),
  out_channels: width.default(4),
  center_input_sample: z.literal(false).default(false),
  flip_sin_to_cos: z.boolean().default(true),
  freq_shift: z.number().default(0),
  down_block_types: z
    .array(z.enum(["CrossAttnDownBlock2D", "DownBlock2D"]))
    .min(1)
    .default(["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]),
  /** null (or UNetMidBlock2D, one residual block) in distilled models. */
  mid_block_type: z
    .union([z.enum(["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"]), z.null()])
    .default("UNetMidBlock2DCrossAttn"),
  up_block_types: z
    .array(z.enum(["CrossAttnUpBlock2D", "UpBlock2D"]))
    .min(1)
    .default(["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]),
  /** The first attention of a block looks at the text too (the x4 upscaler); the middle is never meant. */
  only_cross_attention: z.union([z.boolean(), z.array(z.boolean())]).default(false),
  block_out_channels: z.array(width).min(1).max(MAX_LEVELS).default([320, 640, 1280, 1280]),
  layers_per_block: z.union([layers, z.array(layers).min(1).max(MAX_LEVELS)]).default(2),
  downsample_padding: z.literal(1).default(1),
  mid_block_scale_factor: z.literal(1).default(1),
  dropout: z.literal(0).default(0),
  /** Two names of one function. */
  act_fn: z.enum(["silu", "swish"]).default("silu"),
  norm_num_groups: width.default(32),
  norm_eps: z.number().positive().default(1e-5),
  cross_attention_dim: width.default(1280),
  /** One number, one per block, or per block one per attention. */
  transformer_layers_per_block: z.union([depth, transformers]).default(1),
  /** The same on the way up, from the innermost block out; the way down reversed where null. */
  reverse_transformer_layers_per_block: z.union([z.null(), transformers]).default(null),
  encoder_hid_dim: z.null().default(null),
  encoder_hid_dim_type: z.null().default(null),
  /** Number of heads, in spite of its name: a slip of diffusers' that every checkpoint keeps. */
  attention_head_dim: z.union([width, z.array(width).min(1).max(MAX_LEVELS)]).default(8),
  num_attention_heads: z.null().default(null),
  dual_cross_attention: z.literal(false).default(false),
  use_linear_projection: z.boolean().default(false),
  class_embed_type: z
    .union([z.null(), z.enum(["timestep", "projection", "simple_projection", "identity"])])
    .default(null),
  addition_embed_type: z.union([z.null(), z.enum(["text", "text_time"])]).default(null),
  addition_time_embed_dim: z.union([z.null(), width]).default(null),
  /** Of addition_embed_type "text" only. */
  addition_embed_type_num_heads: width.default(64),
  num_class_embeds: z.union([z.null(), width]).default(null),
  /** Without effect: everything is computed in float32. */
  upcast_attention: z.union([z.boolean(), z.null()]).default(false),
  resnet_time_scale_shift: z.enum(["default", "scale_shift"]).default("default"),
  resnet_skip_time_act: z.literal(false).default(false),
  resnet_out_scale_factor: z.literal(1).default(1),
  time_embedding_type: z.literal("positional").default("positional"),
  time_embedding_dim: z.union([z.null(), width]).default(null),
  time_embedding_act_fn: z.null().default(null),
  timestep_post_act: z.null().default(null),
  time_cond_proj_dim: z.union([z.null(), width]).default(null),
  conv_in_kernel: z.literal(3).default(3),
  conv_out_kernel: z.literal(3).default(3),
  projection_class_embeddings_input_dim: z.union([z.null(), width]).default(null),
  attention_type: z.literal("default").default("default"),
  class_embeddings_concat: z.literal(false).default(false),
  mid_block_only_cross_attention: z.union([z.null(), z.literal(false)]).default(null),
  cross_attention_norm: z.null().default(null),
});

/** What varies by resolution. */
export interface UNetBlock {
  channels: number;
  /** Residual blocks on the way down; there is one more on the way up. */
  layers: number;
  heads: number;
  onlyCrossAttention: boolean;
  /** Transformer blocks of each attention on the way down, `layers` numbers. */
  downTransformers: readonly number[];
  /** The same on the way up, `layers + 1` numbers. */
  upTransformers: readonly number[];
}

/** diffusers' configuration with its defaults, and the values that vary by block spelled out. */
export type UNet2DConditionConfig = z.output<typeof schema> & {
  /** Per resolution, from the outermost in. */
  blocks: UNetBlock[];
  /** Transformer blocks of the attention in the middle. */
  midTransformers: number;
  /** Width of the embedding of time. */
  timeFeatures: number;
};

/**
 * Checks a `config.json`, or a configuration that came from here.
 *
 * @throws {ConfigError} That names the option.
 */
export function parseUNetConfig(config: unknown, source: string): UNet2DConditionConfig {
  const { blocks: _, midTransformers: _mid, timeFeatures: _time, ...given } = config as UNet2DConditionConfig;
  const parsed = parseConfig(schema, given, source);
  const refuse = (problem: string): never => {
    throw new ConfigError(`${source}: ${problem}.`);
  };
  const size = parsed.block_out_channels.length;
  for (const key of ["down_block_types", "up_block_types"] as const) {
    const { length } = parsed[key];
    if (length !== size) refuse(`${key} has ${length} entries, block_out_channels ${size}; they must match`);
  }
  checkEmbeddings(parsed, refuse);

  const spread = <T>(key: string, value: T | readonly T[]): readonly T[] => {
    if (!Array.isArray(value)) return new Array<T>(size).fill(value as T);
    if (value.length !== size) refuse(`${key} must have ${size} entries; got ${value.length}`);
    return value as readonly T[];
  };
  /** One number per attention of each block. */
  const perAttention = (key: string, values: readonly (number | number[])[], attentions: readonly number[]) =>
    values.map((value, i) => {
      if (typeof value === "number") return new Array<number>(attentions[i]!).fill(value);
      if (value.length !== attentions[i]) {
        refuse(`${key}[${i}] must have ${attentions[i]} entries, as that block has attentions; got ${value.length}`);
      }
      return value;
    });

  const heads = spread("attention_head_dim", parsed.attention_head_dim);
  const layers = spread("layers_per_block", parsed.layers_per_block);
  const crossOnly = spread("only_cross_attention", parsed.only_cross_attention);
  const reverse = parsed.reverse_transformer_layers_per_block;
  const down = spread<number | number[]>("transformer_layers_per_block", parsed.transformer_layers_per_block);
  if (reverse === null && down.some((value) => Array.isArray(value))) {
    refuse("transformer_layers_per_block with a list per block needs reverse_transformer_layers_per_block; got null");
  }
  const up = reverse === null ? down : [...spread("reverse_transformer_layers_per_block", reverse)].reverse();
  const downTransformers = perAttention("transformer_layers_per_block", down, layers);
  const upTransformers = perAttention(
    "reverse_transformer_layers_per_block",
    up,
    layers.map((each) => each + 1),
  );
  const innermost = down.at(-1)!;
  const blocks = parsed.block_out_channels.map((channels, i): UNetBlock => {
    if (channels % parsed.norm_num_groups !== 0) {
      const groups = parsed.norm_num_groups;
      refuse(`norm_num_groups=${groups} must divide every entry of block_out_channels; got ${channels}`);
    }
    if (channels % heads[i]! !== 0) {
      refuse(`attention_head_dim gives ${heads[i]} heads, which must divide ${channels} channels`);
    }
    return {
      channels,
      layers: layers[i]!,
      heads: heads[i]!,
      onlyCrossAttention: crossOnly[i]!,
      downTransformers: downTransformers[i]!,
      upTransformers: upTransformers[i]!,
    };
  });
  return {
    ...parsed,
    blocks,
    midTransformers: typeof innermost === "number" ? innermost : innermost[0]!,
    timeFeatures: parsed.time_embedding_dim ?? 4 * blocks[0]!.channels,
  };
}

/** Options that other options need. */
function checkEmbeddings(config: z.output<typeof schema>, refuse: (problem: string) => never): void {
  const { class_embed_type: classes, projection_class_embeddings_input_dim: width } = config;
  if ((classes === "projection" || classes === "simple_projection") && width === null) {
    refuse(`class_embed_type="${classes}" needs projection_class_embeddings_input_dim; got null`);
  }
  const { addition_embed_type: addition, addition_embed_type_num_heads: heads, cross_attention_dim: text } = config;
  if (addition === "text" && text % heads !== 0) {
    refuse(`addition_embed_type_num_heads=${heads} must divide cross_attention_dim; got ${text}`);
  }
  if (addition !== "text_time") return;
  const { addition_time_embed_dim: features } = config;
  if (features === null || width === null) {
    refuse(
      'addition_embed_type="text_time" needs addition_time_embed_dim and projection_class_embeddings_input_dim; ' +
        `got ${features} and ${width}`,
    );
  }
}
