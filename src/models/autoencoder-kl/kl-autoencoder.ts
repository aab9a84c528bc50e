// What the KL autoencoders share: from images to the mean and variance of latents, and back. Everything is computed in float32,
// whatever the checkpoint's precision: what diffusers does where force_upcast is set.

import { z } from "zod";
import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { conv2d, groupNorm, linear, ModelWeights, type Scope } from "../../nn/index.js";
import { type RandomOptions, randn } from "../../tensor/random.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { downsample, resnetBlock, upsample } from "../blocks.js";
import { depth, MAX_LEVELS, side, width } from "../config-limits.js";
import { Model } from "../model.js";
import {
  resolveTiling,
  runTilesFaded,
  type TilingDirection,
  type TilingOptions,
  type Tilings,
  tileRunner,
  withTiling,
} from "./autoencoder-tiling.js";
import type { LatentScaling } from "./latent-scaling.js";

const EPSILON = 1e-6;
/** diffusers keeps the logarithm of the variance within these limits. */
const LOGVAR_RANGE = [-30, 20] as const;
/** One pixel at the bottom and one at the right. */
const DOWNSAMPLE_PADDING = [0, 0, 1, 1] as const;

/** The options that all of them have, with AutoencoderKL's defaults. */
export const KL_SHAPE = {
  in_channels: width.default(3),
  out_channels: width.default(3),
  down_block_types: z.array(z.literal("DownEncoderBlock2D")).default(["DownEncoderBlock2D"]),
  up_block_types: z.array(z.literal("UpDecoderBlock2D")).default(["UpDecoderBlock2D"]),
  block_out_channels: z.array(width).min(1).max(MAX_LEVELS).default([64]),
  layers_per_block: depth.min(1).default(1),
  act_fn: z.literal("silu").default("silu"),
  latent_channels: width.default(4),
  norm_num_groups: width.default(32),
  use_quant_conv: z.boolean().default(true),
  use_post_quant_conv: z.boolean().default(true),
  mid_block_add_attention: z.boolean().default(true),
  /** Side of a tile, where tiling is enabled. */
  sample_size: z.union([side, z.array(side).length(2)]).default(32),
  /** Without effect: everything is computed in float32. */
  force_upcast: z.boolean().default(true),
};

/** The lists of a configuration that must be as long as `block_out_channels`. */
export const blocksFit = (
  config: { readonly block_out_channels: readonly number[] },
  types: readonly unknown[] | null | undefined,
): boolean => !types || types.length === config.block_out_channels.length;

/** What a KL autoencoder is built of. */
export interface KlConfig extends Readonly<z.output<z.ZodObject<typeof KL_SHAPE>>> {
  /** The decoder's widths, where they are others than `block_out_channels`. */
  readonly decoder_block_out_channels?: readonly number[] | null | undefined;
}

/** Mean and logarithm of the variance of the normal distribution over latents that an image stands for. */
export interface LatentDistribution<T> {
  mean: T;
  /** Within −30 … 20. */
  logvar: T;
}

/** Encoder and decoder; a subclass says how its latents are scaled. */
export abstract class KlAutoencoder<Config extends KlConfig = KlConfig> extends Model<Config> {
  /** diffusers' name of the class, for messages. */
  protected abstract readonly className: string;
  private currentTilings: Tilings = {};

  /** Between z and the latents that a diffusion model works on. */
  abstract latentScaling(): Promise<LatentScaling>;

  /** Image pixels per latent pixel, along each side. */
  get downscale(): number {
    return downscaleOf(this.config);
  }

  /**
   * From now on, images larger than a tile are encoded and decoded tile by tile: memory is that of one tile, at the
   * price of small differences, since tiles do not see each other.
   *
   * @throws {ConfigError} Unless tiles and their overlaps are whole latent pixels.
   */
  enableTiling(options: TilingOptions = {}): void {
    const { sample_size: size } = this.config;
    const defaults = { tileSampleMinSize: typeof size === "number" ? size : size[0]!, tileOverlapFactor: 0.25 };
    const tiling = resolveTiling(`${this.className}.enableTiling`, options, defaults, this.downscale, 0);
    this.currentTilings = withTiling(this.currentTilings, options.direction, tiling);
  }

  /** Undoes {@link enableTiling}, for one direction or for both. */
  disableTiling(direction?: TilingDirection): void {
    this.currentTilings = withTiling(this.currentTilings, direction, undefined);
  }

  /** The tiles as they are set, in latent pixels. */
  get tilings(): Tilings {
    return this.currentTilings;
  }

  /**
   * @param image - `[B, in_channels, H, W]` in −1 … 1; H and W multiples of {@link downscale}.
   * @returns Each `[B, latent_channels, H/downscale, W/downscale]`, before scaling.
   * @throws {ShapeError} If the image has another shape.
   */
  async encode(image: Tensor): Promise<LatentDistribution<Tensor<"float32">>> {
    const { shape } = image;
    const { in_channels: channels } = this.config;
    const step = this.downscale;
    const isImage = image.dtype === "float32" && shape.length === 4 && shape[1] === channels;
    if (!isImage || shape[2]! % step !== 0 || shape[3]! % step !== 0) {
      throw new ShapeError(
        `${this.className}.encode: the image must be float32 [B, ${channels}, H, W] with H and W multiples of ${step}; ` +
          `got ${image.dtype} [${shape.join(",")}].`,
      );
    }
    const { encode: tiling } = this.tilings;
    if (tiling && Math.max(shape[2]!, shape[3]!) > tiling.size * step) {
      const moments = await runTilesFaded(
        image as Tensor<"float32">,
        "encode",
        tiling,
        tileRunner(this.runtime, (tile) => encodeMoments(this.frozenScope(tile.graph), tile, this.config)),
      );
      return splitMoments(moments);
    }
    const build = (graph: Graph) => {
      const x = graph.input("image", "float32", shape);
      const { mean, logvar } = encodeKl(this.frozenScope(graph), x, this.config);
      graph.output("mean", mean);
      graph.output("logvar", logvar);
    };
    const { mean, logvar } = await this.run(`encode ${shape.join("x")}`, build, { image });
    return { mean: mean as Tensor<"float32">, logvar: logvar as Tensor<"float32"> };
  }

  /**
   * @param latents - `[B, latent_channels, H, W]`, already divided by the scaling factor.
   * @returns `[B, out_channels, H·downscale, W·downscale]`, about −1 … 1.
   * @throws {ShapeError} If the latents have another shape.
   */
  async decode(latents: Tensor): Promise<Tensor<"float32">> {
    const { shape, dtype } = latents;
    if (dtype !== "float32" || shape.length !== 4 || shape[1] !== this.config.latent_channels) {
      throw new ShapeError(
        `${this.className}.decode: the latents must be [B, ${this.config.latent_channels}, H, W], float32; ` +
          `got ${dtype} [${shape.join(",")}].`,
      );
    }
    const { decode: tiling } = this.tilings;
    if (tiling && Math.max(shape[2]!, shape[3]!) > tiling.size) {
      return runTilesFaded(
        latents as Tensor<"float32">,
        "decode",
        tiling,
        tileRunner(this.runtime, (tile) => decodeKl(this.frozenScope(tile.graph), tile, this.config)),
      );
    }
    const build = (graph: Graph) => {
      const z = graph.input("latents", "float32", shape);
      graph.output("image", decodeKl(this.frozenScope(graph), z, this.config));
    };
    return (await this.run(`decode ${shape.join("x")}`, build, { latents })).image as Tensor<"float32">;
  }
}

/** Image `[B, in_channels, H, W]` in −1 … 1 to mean and unlimited logvar, concatenated: `[B, 2·latent_channels, h, w]`. */
function encodeMoments(model: Scope, image: Value, config: KlConfig): Value {
  const encoder = model.in("encoder");
  const widths = config.block_out_channels;
  let x = conv2d(encoder.in("conv_in"), image, widths[0]!, 3, { padding: 1 });
  widths.forEach((width, level) => {
    const block = encoder.in(`down_blocks.${level}`);
    x = resnets(block, x, width, config.layers_per_block, config);
    const isLast = level === widths.length - 1;
    if (!isLast) x = downsample(block.in("downsamplers.0"), x, width, DOWNSAMPLE_PADDING);
  });
  x = midBlock(encoder.in("mid_block"), x, config);
  const moments = outputLayers(encoder, x, 2 * config.latent_channels, config);
  return config.use_quant_conv ? conv2d(model.in("quant_conv"), moments, 2 * config.latent_channels, 1) : moments;
}

/** Image `[B, in_channels, H, W]` in −1 … 1 to the distribution of its latents. */
export function encodeKl(model: Scope, image: Value, config: KlConfig): LatentDistribution<Value> {
  const { latent_channels: latent } = config;
  const moments = encodeMoments(model, image, config);
  return {
    mean: ops.slice(moments, 1, 0, latent),
    logvar: clamp(ops.slice(moments, 1, latent, 2 * latent), ...LOGVAR_RANGE),
  };
}

/** The same split of moments that have been computed. */
function splitMoments({ data, shape }: Tensor<"float32">): LatentDistribution<Tensor<"float32">> {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const half = [batch, channels / 2, height, width];
  const [mean, logvar] = [zeros(half), zeros(half)];
  const length = mean.size / batch;
  for (let i = 0; i < batch; i++) {
    mean.data.set(data.subarray(2 * i * length, (2 * i + 1) * length), i * length);
    logvar.data.set(data.subarray((2 * i + 1) * length, (2 * i + 2) * length), i * length);
  }
  const [low, high] = LOGVAR_RANGE;
  return {
    mean,
    logvar: tensor(
      logvar.data.map((value) => Math.min(Math.max(value, low), high)),
      half,
    ),
  };
}

/**
 * Draws latents: z = mean + exp(logvar / 2) · noise, the noise of the whole batch in one draw, as diffusers'
 * `latent_dist.sample(generator)`.
 *
 * @returns Shape of the mean, before scaling.
 */
export function sampleLatents(
  { mean, logvar }: LatentDistribution<Tensor<"float32">>,
  options: RandomOptions = {},
): Tensor<"float32"> {
  const noise = randn(mean.shape, options).data;
  return tensor(
    mean.data.map((value, i) => value + Math.exp(logvar.data[i]! / 2) * noise[i]!),
    mean.shape,
  );
}

/** Latents `[B, latent_channels, H, W]` to an image, about −1 … 1. */
export function decodeKl(model: Scope, latents: Value, config: KlConfig): Value {
  const decoder = model.in("decoder");
  const widths = [...(config.decoder_block_out_channels ?? config.block_out_channels)].reverse();
  let x = latents;
  if (config.use_post_quant_conv) x = conv2d(model.in("post_quant_conv"), x, config.latent_channels, 1);
  x = conv2d(decoder.in("conv_in"), x, widths[0]!, 3, { padding: 1 });
  x = midBlock(decoder.in("mid_block"), x, config);
  widths.forEach((width, level) => {
    const block = decoder.in(`up_blocks.${level}`);
    x = resnets(block, x, width, config.layers_per_block + 1, config);
    const isLast = level === widths.length - 1;
    if (!isLast) x = upsample(block.in("upsamplers.0"), x, width);
  });
  return outputLayers(decoder, x, config.out_channels, config);
}

function resnets(scope: Scope, x: Value, width: number, layers: number, config: KlConfig): Value {
  let y = x;
  for (let layer = 0; layer < layers; layer++) {
    y = resnetBlock(scope.in(`resnets.${layer}`), y, width, { groups: config.norm_num_groups, epsilon: EPSILON });
  }
  return y;
}

/** resnet, attention, resnet at the lowest resolution. */
function midBlock(scope: Scope, x: Value, config: KlConfig): Value {
  const width = x.shape[1]!;
  const options = { groups: config.norm_num_groups, epsilon: EPSILON };
  let y = resnetBlock(scope.in("resnets.0"), x, width, options);
  if (config.mid_block_add_attention) y = pixelAttention(scope.in("attentions.0"), y, config.norm_num_groups);
  return resnetBlock(scope.in("resnets.1"), y, width, options);
}

/** x + attention over all pixels of the normalized x, with one head. */
function pixelAttention(scope: Scope, x: Value, groups: number): Value {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const normalized = groupNorm(scope.in("group_norm"), x, groups, EPSILON);
  const pixels = ops.transpose(ops.reshape(normalized, [batch, channels, height * width]), [0, 2, 1]);
  const q = linear(scope.in("to_q"), pixels, channels);
  const k = linear(scope.in("to_k"), pixels, channels);
  const v = linear(scope.in("to_v"), pixels, channels);
  const y = linear(scope.in("to_out.0"), ops.attention(q, k, v, { heads: 1 }), channels);
  return ops.add(x, ops.reshape(ops.transpose(y, [0, 2, 1]), x.shape));
}

function outputLayers(scope: Scope, x: Value, channels: number, config: KlConfig): Value {
  const normalized = groupNorm(scope.in("conv_norm_out"), x, config.norm_num_groups, EPSILON);
  return conv2d(scope.in("conv_out"), ops.silu(normalized), channels, 3, { padding: 1 });
}

/** The gradient passes where x is within the limits. */
function clamp(x: Value, low: number, high: number): Value {
  const { graph } = x;
  const notAbove = ops.where(ops.greater(x, high), graph.scalar(high), x);
  return ops.where(ops.greater(x, low), notAbove, graph.scalar(low));
}

export function downscaleOf(config: KlConfig): number {
  return 2 ** (config.block_out_channels.length - 1);
}

const CURRENT_NAMES: Readonly<Record<string, string>> = {
  query: "to_q",
  key: "to_k",
  value: "to_v",
  proj_attn: "to_out.0",
};

/** Older checkpoints name the attention's layers query, key, value and proj_attn. */
export function withCurrentNames(loaded: ModelWeights): ModelWeights {
  const rename = (name: string) =>
    name.replace(/(\.attentions\.\d+)\.(query|key|value|proj_attn)\./, (_, at, old) => `${at}.${CURRENT_NAMES[old]}.`);
  return new ModelWeights(new Map([...loaded.weights].map(([name, weight]) => [rename(name), weight])), loaded.source);
}
