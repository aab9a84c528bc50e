// The configuration of Flux2Transformer2DModel: FLUX.2 klein and dev. Every other option, and every other value, is refused
// by name.

import { z } from "zod";
import { parseConfig } from "../../storage/parse-config.js";
import { depth, width } from "../config-limits.js";
import { checkFluxChannels, FLUX_PACKING } from "../flux-transformer-2d/flux-config.js";

const schema = z.strictObject({
  patch_size: z.literal(1).default(1),
  /** Of a token: four times those of the latents. */
  in_channels: width.multipleOf(FLUX_PACKING ** 2).default(128),
  out_channels: z.union([width, z.null()]).default(null),
  num_layers: depth.default(8),
  num_single_layers: depth.default(48),
  attention_head_dim: width.default(128),
  num_attention_heads: width.default(48),
  joint_attention_dim: width.default(15360),
  /** Features of a number before it is embedded. */
  timestep_guidance_channels: width.default(256),
  /** Width of the feed-forwards in that of the tokens. */
  mlp_ratio: z.number().positive().max(64).default(3),
  axes_dims_rope: z.array(width.multipleOf(2)).length(4).default([32, 32, 32, 32]),
  rope_theta: z.number().positive().default(2000),
  eps: z.number().positive().default(1e-6),
  /** Whether the model is told a guidance scale (dev). */
  guidance_embeds: z.boolean().default(true),
});

/** diffusers' configuration with its defaults, and widths that follow from it. */
export type Flux2TransformerConfig = z.output<typeof schema> & {
  /** num_attention_heads · attention_head_dim. */
  innerFeatures: number;
  /** Of a feed-forward. */
  hiddenFeatures: number;
};

/**
 * Checks a `config.json`, or a configuration that came from here.
 *
 * @throws {ConfigError} That names the option.
 */
export function parseFlux2Config(config: unknown, source: string): Flux2TransformerConfig {
  const { innerFeatures: _, hiddenFeatures: _hidden, ...given } = config as Flux2TransformerConfig;
  const parsed = parseConfig(schema, given, source);
  checkFluxChannels(parsed, source);
  const innerFeatures = parsed.num_attention_heads * parsed.attention_head_dim;
  return { ...parsed, innerFeatures, hiddenFeatures: Math.trunc(innerFeatures * parsed.mlp_ratio) };
}
