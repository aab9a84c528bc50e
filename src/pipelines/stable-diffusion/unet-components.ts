// The parts that every Stable Diffusion pipeline has.

import type { Autoencoder } from "../../models/autoencoder.js";
import type { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import type { Scheduler, SchedulerConfig } from "../../schedulers/index.js";

export interface UNetComponents {
  unet: UNet2DConditionModel;
  vae: Autoencoder;
  /** Or its configuration, of which it is made when it is first used. */
  scheduler: Scheduler | SchedulerConfig;
}

/**
 * Latent height and width that a UNet was trained for.
 *
 * @param fallback - Where its configuration names none.
 */
export function latentSizeOf({ config }: UNet2DConditionModel, fallback: number): [height: number, width: number] {
  const size = config.sample_size ?? fallback;
  return typeof size === "number" ? [size, size] : [size[0]!, size[1] ?? size[0]!];
}
