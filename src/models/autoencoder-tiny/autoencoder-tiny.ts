// AutoencoderTiny: a small residual autoencoder between images and latents, without normalization. Everything is
// computed in float32, whatever the checkpoint's precision.

import { z } from "zod";
import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { conv2d, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import {
  resolveTiling,
  runTilesMasked,
  type TilingDirection,
  type TilingOptions,
  type Tilings,
  tileRunner,
  withTiling,
} from "../autoencoder-kl/autoencoder-tiling.js";
import { evenScaling, type LatentScaling } from "../autoencoder-kl/latent-scaling.js";
import { depth, MAX_LEVELS, width } from "../config-limits.js";
import { freshWeights, Model } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";

const channels = z.array(width).min(1).max(MAX_LEVELS);

const schema = z
  .strictObject({
    in_channels: width.default(3),
    out_channels: width.default(3),
    encoder_block_out_channels: channels.default([64, 64, 64, 64]),
    decoder_block_out_channels: channels.default([64, 64, 64, 64]),
    act_fn: z.literal("relu").default("relu"),
    upsample_fn: z.literal("nearest").default("nearest"),
    latent_channels: width.default(4),
    upsampling_scaling_factor: z.literal(2).default(2),
    num_encoder_blocks: z.array(depth).max(MAX_LEVELS).default([1, 3, 3, 3]),
    num_decoder_blocks: z.array(depth).max(MAX_LEVELS).default([3, 3, 3, 1]),
    latent_magnitude: z.number().positive().default(3),
    latent_shift: z.number().default(0.5),
    /** Without effect: everything is computed in float32. */
    force_upcast: z.boolean().default(false),
    scaling_factor: z.number().positive().default(1),
    shift_factor: z.number().default(0),
    /** Written by diffusers: the decoder's. Without effect. */
    block_out_channels: z.array(z.int()).optional(),
  })
  .refine((config) => isUniform(config.encoder_block_out_channels, config.num_encoder_blocks), {
    path: ["encoder_block_out_channels"],
    error: "must be one width, as often as there are num_encoder_blocks",
  })
  .refine((config) => isUniform(config.decoder_block_out_channels, config.num_decoder_blocks), {
    path: ["decoder_block_out_channels"],
    error: "must be one width, as often as there are num_decoder_blocks",
  })
  .refine((config) => config.encoder_block_out_channels.length === config.decoder_block_out_channels.length, {
    path: ["decoder_block_out_channels"],
    error: "must be as many as encoder_block_out_channels",
  });

/** diffusers' stages keep the width that they are given. */
function isUniform(widths: readonly number[], blocks: readonly number[]): boolean {
  return widths.length === blocks.length && widths.every((width) => width === widths[0]);
}

/** diffusers' configuration of AutoencoderTiny, as far as it is supported. */
export type AutoencoderTinyConfig = z.output<typeof schema>;

const CLASS: ModelClass<AutoencoderTinyConfig> = {
  name: "AutoencoderTiny",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    const size = 2 ** (config.encoder_block_out_channels.length - 1);
    const image = scope.graph.input("image", "float32", [1, config.in_channels, size, size]);
    decodeTiny(scope, encodeTiny(scope, image, config), config);
  },
};

/** @see https://github.com/madebyollin/taesd */
export class AutoencoderTiny extends Model<AutoencoderTinyConfig> {
  private currentTilings: Tilings = {};

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<AutoencoderTiny> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new AutoencoderTiny(config, weights, runtime);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): AutoencoderTiny {
    const parsed = CLASS.parse(config, CLASS.name);
    return new AutoencoderTiny(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  /** Between z and the latents that a diffusion model works on. */
  async latentScaling(): Promise<LatentScaling> {
    return evenScaling(this.config.shift_factor, this.config.scaling_factor);
  }

  /** Image pixels per latent pixel, along each side. */
  get downscale(): number {
    return 2 ** (this.config.encoder_block_out_channels.length - 1);
  }

  /**
   * From now on, images are encoded and decoded tile by tile: memory is that of one tile, at the price of small
   * differences, since tiles do not see each other. As in diffusers, the last tiles overlap even where one would do.
   *
   * @throws {ConfigError} Unless tiles and their overlaps are whole latent pixels, the overlap at least 2.
   */
  enableTiling(options: TilingOptions = {}): void {
    const defaults = { tileSampleMinSize: 512, tileOverlapFactor: 0.125 };
    const tiling = resolveTiling("AutoencoderTiny.enableTiling", options, defaults, this.downscale, 2);
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
   * @returns `[B, latent_channels, H/downscale, W/downscale]`, before scaling.
   * @throws {ShapeError} If the image has another shape.
   */
  async encode(image: Tensor): Promise<{ latents: Tensor<"float32"> }> {
    const { shape, dtype } = image;
    const { in_channels: channels } = this.config;
    const step = this.downscale;
    const isImage = dtype === "float32" && shape.length === 4 && shape[1] === channels;
    if (!isImage || shape[2]! % step !== 0 || shape[3]! % step !== 0) {
      throw new ShapeError(
        `AutoencoderTiny.encode: the image must be float32 [B, ${channels}, H, W] with H and W multiples of ${step}; ` +
          `got ${dtype} [${shape.join(",")}].`,
      );
    }
    if (this.tilings.encode) {
      const run = tileRunner(this.runtime, (tile) => encodeTiny(this.frozenScope(tile.graph), tile, this.config));
      return { latents: await runTilesMasked(image as Tensor<"float32">, "encode", this.tilings.encode, run) };
    }
    const build = (graph: Graph) => {
      const x = graph.input("image", "float32", image.shape);
      graph.output("latents", encodeTiny(this.frozenScope(graph), x, this.config));
    };
    const { latents } = await this.run(`encode ${image.shape.join("x")}`, build, { image });
    return { latents: latents as Tensor<"float32"> };
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
        `AutoencoderTiny.decode: the latents must be [B, ${this.config.latent_channels}, H, W], float32; ` +
          `got ${dtype} [${shape.join(",")}].`,
      );
    }
    if (this.tilings.decode) {
      const run = tileRunner(this.runtime, (tile) => decodeTiny(this.frozenScope(tile.graph), tile, this.config));
      return runTilesMasked(latents as Tensor<"float32">, "decode", this.tilings.decode, run);
    }
    const build = (graph: Graph) => {
      const z = graph.input("latents", "float32", latents.shape);
      graph.output("image", decodeTiny(this.frozenScope(graph), z, this.config));
    };
    return (await this.run(`decode ${latents.shape.join("x")}`, build, { latents })).image as Tensor<"float32">;
  }
}

/** Image `[B, C, H, W]` in −1 … 1 to latents. */
export function encodeTiny(model: Scope, image: Value, config: AutoencoderTinyConfig): Value {
  const layers = new Sequence(model.in("encoder.layers"));
  let x = ops.mul(ops.add(image, 1), 0.5);
  config.num_encoder_blocks.forEach((blocks, stage) => {
    const width = config.encoder_block_out_channels[stage]!;
    x = conv2d(layers.next(), x, width, 3, stage === 0 ? { padding: 1 } : { padding: 1, stride: 2, bias: false });
    for (let block = 0; block < blocks; block++) x = tinyBlock(layers.next(), x, width);
  });
  return conv2d(layers.next(), x, config.latent_channels, 3, { padding: 1 });
}

/** Latents to an image, about −1 … 1. Latents are squashed to ±3 first, as the encoder was trained to give them. */
export function decodeTiny(model: Scope, latents: Value, config: AutoencoderTinyConfig): Value {
  const layers = new Sequence(model.in("decoder.layers"));
  const squashed = ops.mul(ops.tanh(ops.mul(latents, 1 / 3)), 3);
  let x = ops.relu(conv2d(layers.next(), squashed, config.decoder_block_out_channels[0]!, 3, { padding: 1 }));
  layers.next(); // the activation's own place
  config.num_decoder_blocks.forEach((blocks, stage) => {
    const width = config.decoder_block_out_channels[stage]!;
    const isLast = stage === config.num_decoder_blocks.length - 1;
    for (let block = 0; block < blocks; block++) x = tinyBlock(layers.next(), x, width);
    if (!isLast) {
      layers.next(); // the upsampling's own place
      x = ops.upsampleNearest(x);
    }
    x = conv2d(layers.next(), x, isLast ? config.out_channels : width, 3, { padding: 1, bias: isLast });
  });
  return ops.sub(ops.mul(x, 2), 1);
}

/** relu(conv(relu(conv(relu(conv(x))))) + x). */
function tinyBlock(scope: Scope, x: Value, width: number): Value {
  let y = ops.relu(conv2d(scope.in("conv.0"), x, width, 3, { padding: 1 }));
  y = ops.relu(conv2d(scope.in("conv.2"), y, width, 3, { padding: 1 }));
  y = conv2d(scope.in("conv.4"), y, width, 3, { padding: 1 });
  const skip = x.shape[1] === width ? x : conv2d(scope.in("skip"), x, width, 1, { bias: false });
  return ops.relu(ops.add(y, skip));
}

/** Numbers the members of a torch Sequential. */
class Sequence {
  private count = 0;
  constructor(private readonly scope: Scope) {}
  next(): Scope {
    return this.scope.in(this.count++);
  }
}
