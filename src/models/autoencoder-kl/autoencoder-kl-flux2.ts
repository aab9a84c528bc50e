// AutoencoderKLFlux2: FLUX.2's autoencoder, whose latents are scaled by the running statistics of a batch normalization over
// patches of 2×2 latent pixels.

import { z } from "zod";
import type { Graph } from "../../graph/index.js";
import type { Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
import { MAX_LEVELS, width } from "../config-limits.js";
import { freshWeights } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";
import {
  blocksFit,
  decodeKl,
  downscaleOf,
  encodeKl,
  KL_SHAPE,
  KlAutoencoder,
  withCurrentNames,
} from "./kl-autoencoder.js";
import type { LatentScaling } from "./latent-scaling.js";

/** Latent pixels along each side of a patch. */
const PATCH = 2;
const FOUR_DOWN = Array.from({ length: 4 }, () => "DownEncoderBlock2D" as const);
const FOUR_UP = Array.from({ length: 4 }, () => "UpDecoderBlock2D" as const);

const schema = z
  .strictObject({
    ...KL_SHAPE,
    down_block_types: KL_SHAPE.down_block_types.removeDefault().default(FOUR_DOWN),
    up_block_types: KL_SHAPE.up_block_types.removeDefault().default(FOUR_UP),
    block_out_channels: KL_SHAPE.block_out_channels.removeDefault().default([128, 256, 512, 512]),
    decoder_block_out_channels: z.array(width).min(1).max(MAX_LEVELS).nullish(),
    layers_per_block: KL_SHAPE.layers_per_block.removeDefault().default(2),
    latent_channels: width.default(32),
    sample_size: KL_SHAPE.sample_size.removeDefault().default(1024),
    batch_norm_eps: z.number().positive().default(1e-4),
    /** Without effect: how fast the statistics moved when the autoencoder was trained. */
    batch_norm_momentum: z.number().default(0.1),
    patch_size: z.array(z.literal(PATCH)).length(2).default([PATCH, PATCH]),
  })
  .refine((config) => blocksFit(config, config.down_block_types), {
    path: ["down_block_types"],
    error: "must be as many as block_out_channels",
  })
  .refine((config) => blocksFit(config, config.up_block_types), {
    path: ["up_block_types"],
    error: "must be as many as block_out_channels",
  })
  .refine((config) => blocksFit(config, config.decoder_block_out_channels), {
    path: ["decoder_block_out_channels"],
    error: "must be as many as block_out_channels",
  });

/** diffusers' configuration of AutoencoderKLFlux2, as far as it is supported. */
export type AutoencoderKLFlux2Config = z.output<typeof schema>;

const CLASS: ModelClass<AutoencoderKLFlux2Config> = {
  name: "AutoencoderKLFlux2",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    const size = downscaleOf(config);
    const image = scope.graph.input("image", "float32", [1, config.in_channels, size, size]);
    decodeKl(scope, encodeKl(scope, image, config).mean, config);
    statistics(scope, config);
  },
  currentNames: withCurrentNames,
};

/** Mean and variance of each of the C·2·2 values of a patch. */
function statistics(model: Scope, config: AutoencoderKLFlux2Config) {
  const shape = [config.latent_channels * PATCH * PATCH];
  const scope = model.in("bn");
  return {
    mean: scope.parameter("running_mean", shape, { kind: "constant", value: 0 }),
    variance: scope.parameter("running_var", shape, { kind: "constant", value: 1 }),
  };
}

/**
 * The autoencoder of FLUX.2.
 *
 * A diffusion model works on (z − mean) / sqrt(variance + batch_norm_eps), mean and variance of each channel at each place of
 * a patch of 2×2 latent pixels; encode and decode take and give z itself, `[B, latent_channels, h, w]`.
 */
export class AutoencoderKLFlux2 extends KlAutoencoder<AutoencoderKLFlux2Config> {
  protected readonly className = CLASS.name;

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<AutoencoderKLFlux2> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new AutoencoderKLFlux2(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): AutoencoderKLFlux2 {
    const parsed = CLASS.parse(config, CLASS.name);
    return new AutoencoderKLFlux2(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  async latentScaling(): Promise<LatentScaling> {
    const build = (graph: Graph) => {
      const { mean, variance } = statistics(this.frozenScope(graph), this.config);
      graph.output("mean", mean);
      graph.output("variance", variance);
    };
    const { mean, variance } = await this.run("statistics", build, {});
    const epsilon = this.config.batch_norm_eps;
    return {
      patch: PATCH,
      shift: Float64Array.from(mean!.data as Float32Array),
      scale: Float64Array.from(variance!.data as Float32Array, (value) => 1 / Math.sqrt(value + epsilon)),
    };
  }
}
