// The configuration of FluxTransformer2DModel: FLUX.1 dev and schnell. Every other option, and every other value, is refused
// by name.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import { depth, width } from "../config-limits.js";

/** Latent pixels along the side of a token: FLUX packs 2×2 of them, and its configuration counts what comes of it. */
export const FLUX_PACKING = 2;

const schema = z.strictObject({
  patch_size: z.literal(1).default(1),
  /** Of a token: four times those of the latents. */
  in_channels: width.multipleOf(FLUX_PACKING ** 2).default(64),
  out_channels: z.union([width, z.null()]).default(null),
  num_layers: depth.default(19),
  num_single_layers: depth.default(38),
  attention_head_dim: width.default(128),
  num_attention_heads: width.default(24),
  joint_attention_dim: width.default(4096),
  pooled_projection_dim: width.default(768),
  /** Whether the model is told a guidance scale (dev). */
  guidance_embeds: z.boolean().default(false),
  axes_dims_rope: z.array(width.multipleOf(2)).length(3).default([16, 56, 56]),
});

/** diffusers' configuration with its defaults, and the width of the tokens. */
export type FluxTransformerConfig = z.output<typeof schema> & {
  /** num_attention_heads · attention_head_dim. */
  innerFeatures: number;
};

/**
 * Checks a `config.json`, or a configuration that came from here.
 *
 * @throws {ConfigError} That names the option.
 */
export function parseFluxConfig(config: unknown, source: string): FluxTransformerConfig {
  const { innerFeatures: _, ...given } = config as FluxTransformerConfig;
  const parsed = parseConfig(schema, given, source);
  checkFluxChannels(parsed, source);
  return { ...parsed, innerFeatures: parsed.num_attention_heads * parsed.attention_head_dim };
}

/** What FLUX.1 and FLUX.2 ask of channels and axes alike. */
export function checkFluxChannels(
  config: {
    in_channels: number;
    out_channels: number | null;
    attention_head_dim: number;
    axes_dims_rope: readonly number[];
  },
  source: string,
): void {
  const { in_channels: channels, out_channels: out, attention_head_dim: head, axes_dims_rope: axes } = config;
  if (out !== null && out !== channels) {
    throw new ConfigError(
      `${source}: out_channels must be in_channels=${channels}, as in text-to-image models; got ${out}. ` +
        "Fill, Canny and Depth models, which are given another image, are not supported.",
    );
  }
  const sum = axes.reduce((total, count) => total + count, 0);
  if (sum !== head) {
    throw new ConfigError(
      `${source}: axes_dims_rope must add up to attention_head_dim=${head}; got ${axes.join(", ")}.`,
    );
  }
}
