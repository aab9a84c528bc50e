// The configuration of SD3Transformer2DModel: Stable Diffusion 3 and 3.5. Every other option, and every other value, is
// refused by name.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import { depth, side, width } from "../config-limits.js";

const schema = z.strictObject({
  sample_size: side.default(128),
  patch_size: side.default(2),
  in_channels: width.default(16),
  num_layers: depth.min(1).default(18),
  attention_head_dim: width.default(64),
  num_attention_heads: width.default(18),
  joint_attention_dim: width.default(4096),
  caption_projection_dim: width.default(1152),
  pooled_projection_dim: width.default(2048),
  out_channels: z.union([width, z.null()]).default(16),
  /** Tokens along a side that there are positions for. */
  pos_embed_max_size: z.int().positive().max(2048).default(96),
  /** Blocks with a second attention, among image tokens alone (3.5 medium). */
  dual_attention_layers: z.array(z.int().min(0)).max(1000).default([]),
  qk_norm: z.union([z.literal("rms_norm"), z.null()]).default(null),
});

/** diffusers' configuration with its defaults, and the width of the tokens. */
export type SD3TransformerConfig = z.output<typeof schema> & {
  /** num_attention_heads · attention_head_dim. */
  innerFeatures: number;
};

/**
 * Checks a `config.json`, or a configuration that came from here.
 *
 * @throws {ConfigError} That names the option.
 */
export function parseSD3Config(config: unknown, source: string): SD3TransformerConfig {
  const { innerFeatures: _, ...given } = config as SD3TransformerConfig;
  const parsed = parseConfig(schema, given, source);
  const refuse = (problem: string): never => {
    throw new ConfigError(`${source}: ${problem}.`);
  };
  const { num_attention_heads: heads, attention_head_dim: each, caption_projection_dim: caption } = parsed;
  const innerFeatures = heads * each;
  if (caption !== innerFeatures) {
    refuse(
      `caption_projection_dim must be num_attention_heads · attention_head_dim = ${innerFeatures}, since text and image ` +
        `tokens attend together; got ${caption}`,
    );
  }
  if (innerFeatures % 4 !== 0) {
    refuse(`num_attention_heads · attention_head_dim must be a multiple of 4, for positions; got ${innerFeatures}`);
  }
  const { in_channels: channels, out_channels: out, num_layers: layers } = parsed;
  if (out !== null && out !== channels) {
    refuse(`out_channels must be in_channels=${channels}: what is predicted is the latents' flow; got ${out}`);
  }
  const beyond = parsed.dual_attention_layers.find((layer) => layer >= layers);
  if (beyond !== undefined) refuse(`dual_attention_layers must name blocks 0 … ${layers - 1}; got ${beyond}`);
  return { ...parsed, innerFeatures };
}
