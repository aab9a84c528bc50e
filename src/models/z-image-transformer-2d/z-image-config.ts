// The configuration of ZImageTransformer2DModel: Z-Image and Z-Image-Turbo. Every other option, and every other value, is
// refused by name.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import { depth, side, width } from "../config-limits.js";

const schema = z.strictObject({
  /** Latent pixels along the side of a token. */
  all_patch_size: z.array(side).length(1).default([2]),
  all_f_patch_size: z.array(z.literal(1)).length(1).default([1]),
  in_channels: width.default(16),
  dim: width.default(3840),
  n_layers: depth.min(1).default(30),
  n_refiner_layers: depth.default(2),
  n_heads: width.default(30),
  n_kv_heads: width.default(30),
  norm_eps: z.number().positive().default(1e-5),
  qk_norm: z.boolean().default(true),
  cap_feat_dim: width.default(2560),
  /** Of Z-Image-Omni, which is also told images. */
  siglip_feat_dim: z.null().default(null),
  rope_theta: z.number().positive().default(256),
  t_scale: z.number().positive().default(1000),
  axes_dims: z.array(width.multipleOf(2)).length(3).default([32, 48, 48]),
  /** How many places there are along each axis. */
  axes_lens: z.array(width).length(3).default([1024, 512, 512]),
});

/** diffusers' configuration with its defaults. */
export type ZImageTransformerConfig = z.output<typeof schema>;

/**
 * Checks a `config.json`, or a configuration that came from here.
 *
 * @throws {ConfigError} That names the option.
 */
export function parseZImageConfig(config: unknown, source: string): ZImageTransformerConfig {
  const parsed = parseConfig(schema, config, source);
  const refuse = (problem: string): never => {
    throw new ConfigError(`${source}: ${problem}.`);
  };
  const { dim, n_heads: heads, n_kv_heads: keyHeads, axes_dims: axes } = parsed;
  if (dim % heads !== 0) refuse(`n_heads must divide dim=${dim}; got ${heads}`);
  // diffusers reads the option and builds as many heads of keys as of queries.
  if (keyHeads !== heads) refuse(`n_kv_heads must be n_heads=${heads}; got ${keyHeads}`);
  const sum = axes.reduce((total, count) => total + count, 0);
  if (sum !== dim / heads) refuse(`axes_dims must add up to dim / n_heads = ${dim / heads}; got ${axes.join(", ")}`);
  return parsed;
}
