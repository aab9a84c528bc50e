// Loads the parts that every family of flow matching has from a pipeline's folder. Reads no files itself.

import type { Denoiser } from "../diffusion/index.js";
import type { Autoencoder } from "../models/autoencoder.js";
import { AutoencoderKL } from "../models/autoencoder-kl/autoencoder-kl.js";
import { AutoencoderKLFlux2 } from "../models/autoencoder-kl/autoencoder-kl-flux2.js";
import { AutoencoderTiny } from "../models/autoencoder-tiny/autoencoder-tiny.js";
import type { PretrainedOptions } from "../models/pretrained.js";
import type { Scheduler, SchedulerConfig } from "../schedulers/index.js";
import type { PipelineDescription } from "./pipeline-folder.js";
import type { PipelineOptions } from "./stable-diffusion/load-components.js";

/** A transformer, an autoencoder, and how they are sampled. */
export interface FlowComponents<Transformer extends Denoiser = Denoiser> {
  transformer: Transformer;
  vae: Autoencoder;
  /** Or its configuration, of which it is made when it is first used. */
  scheduler: Scheduler | SchedulerConfig;
}

const AUTOENCODERS = { AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny };

/**
 * @param Transformer - The family's class.
 * @throws {FormatError} If a file is missing or malformed.
 * @throws {ConfigError} If a part's configuration is not supported.
 */
export async function loadFlowComponents<Transformer extends Denoiser>(
  { source, config, vaeClass, schedulerConfig }: PipelineDescription,
  options: PipelineOptions,
  Transformer: { fromPretrained(dir: string, options: PretrainedOptions): Promise<Transformer> },
): Promise<FlowComponents<Transformer>> {
  const { scheduler: _, ...forModels } = options;
  const of = (subfolder: string): PretrainedOptions => ({ ...forModels, config, subfolder });
  const transformer = await Transformer.fromPretrained(source, of("transformer"));
  const vae = await AUTOENCODERS[vaeClass].fromPretrained(source, of("vae"));
  return { transformer, vae, scheduler: options.scheduler ?? schedulerConfig };
}
