// AutoencoderKL: the variational autoencoder of Stable Diffusion and FLUX.1, with one scale and shift for all latents.

import { z } from "zod";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
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
import { evenScaling, type LatentScaling } from "./latent-scaling.js";

const schema = z
  .strictObject({
    ...KL_SHAPE,
    scaling_factor: z.number().positive().default(0.18215),
    shift_factor: z
      .number()
      .nullish()
      .transform((shift) => shift ?? 0),
    latents_mean: z.null().optional(),
    latents_std: z.null().optional(),
  })
  .refine((config) => blocksFit(config, config.down_block_types), {
    path: ["down_block_types"],
    error: "must be as many as block_out_channels",
  })
  .refine((config) => blocksFit(config, config.up_block_types), {
    path: ["up_block_types"],
    error: "must be as many as block_out_channels",
  });

/** diffusers' configuration of AutoencoderKL, as far as it is supported. */
export type AutoencoderKLConfig = z.output<typeof schema>;

const CLASS: ModelClass<AutoencoderKLConfig> = {
  name: "AutoencoderKL",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    const size = downscaleOf(config);
    const image = scope.graph.input("image", "float32", [1, config.in_channels, size, size]);
    decodeKl(scope, encodeKl(scope, image, config).mean, config);
  },
  currentNames: withCurrentNames,
};

/**
 * The autoencoder of latent diffusion.
 *
 * A diffusion model works on `(z − shift_factor) · scaling_factor`; encode and decode take and give z itself.
 *
 * @see Kingma & Welling 2013, arXiv:1312.6114; Rombach et al. 2022, arXiv:2112.10752
 */
export class AutoencoderKL extends KlAutoencoder<AutoencoderKLConfig> {
  protected readonly className = CLASS.name;

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<AutoencoderKL> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new AutoencoderKL(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): AutoencoderKL {
    const parsed = CLASS.parse(config, CLASS.name);
    return new AutoencoderKL(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  async latentScaling(): Promise<LatentScaling> {
    return evenScaling(this.config.shift_factor, this.config.scaling_factor);
  }
}
