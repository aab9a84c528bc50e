// Loads the parts that every family has from a pipeline's folder. Reads no files itself.

import { AutoencoderKL } from "../../models/autoencoder-kl/autoencoder-kl.js";
import { AutoencoderTiny } from "../../models/autoencoder-tiny/autoencoder-tiny.js";
import type { PretrainedOptions } from "../../models/pretrained.js";
import { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import type { Scheduler } from "../../schedulers/index.js";
import type { PipelineDescription } from "../pipeline-folder.js";
import type { UNetComponents } from "./unet-components.js";

/** Options of a pipeline's `fromPretrained`; they hold for every part. */
export interface PipelineOptions extends Omit<PretrainedOptions, "subfolder"> {
  /** In place of the scheduler that the pipeline names. */
  scheduler?: Scheduler;
}

/**
 * @throws {FormatError} If a file is missing or malformed.
 * @throws {ConfigError} If a part's configuration is not supported.
 */
export async function loadComponents(
  { source, config, vaeClass, schedulerConfig }: PipelineDescription,
  options: PipelineOptions,
): Promise<UNetComponents> {
  const { scheduler: _, ...forModels } = options;
  const of = (subfolder: string): PretrainedOptions => ({ ...forModels, config, subfolder });
  const unet = await UNet2DConditionModel.fromPretrained(source, of("unet"));
  const Vae = vaeClass === "AutoencoderKL" ? AutoencoderKL : AutoencoderTiny;
  const vae = await Vae.fromPretrained(source, of("vae"));
  // Made when it is first used: training needs its noise schedule only, and a run may take another.
  return { unet, vae, scheduler: options.scheduler ?? schedulerConfig };
}
