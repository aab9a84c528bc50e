// How a model is sampled that was trained with another objective than its scheduler's configuration names.

import { isFlowMatching, type SchedulerConfig } from "../schedulers/index.js";
import type { ObjectiveOptions } from "./objective.js";

/** Latents are not confined to −1 … 1. */
const DDIM = { _class_name: "DDIMScheduler", clip_sample: false, set_alpha_to_one: false } as const;

/**
 * The scheduler's configuration with what an objective's options change: `prediction_type`; with `zeroTerminalSnr`
 * `rescale_betas_zero_snr`, and `timestep_spacing` trailing, so that sampling begins in pure noise, and DDIM in place of
 * PNDM, which cannot. For flow in place of a noise schedule FlowMatchEulerDiscreteScheduler.
 *
 * @returns `config` itself where nothing changes.
 * @see Lin et al. 2023, arXiv:2305.08891
 */
export function samplingConfig(
  config: SchedulerConfig,
  { predictionType, zeroTerminalSnr = false }: Pick<ObjectiveOptions, "predictionType" | "zeroTerminalSnr">,
): SchedulerConfig {
  const before = isFlowMatching(config) ? "flow_prediction" : (config.prediction_type ?? "epsilon");
  const isOther = predictionType !== undefined && predictionType !== before;
  if (isOther && predictionType === "flow_prediction") {
    const { num_train_timesteps } = config;
    return {
      _class_name: "FlowMatchEulerDiscreteScheduler",
      ...(num_train_timesteps !== undefined && { num_train_timesteps }),
    };
  }
  if (!isOther && !zeroTerminalSnr) return config;
  return {
    ...config,
    ...(isOther && { prediction_type: predictionType }),
    ...(zeroTerminalSnr && { rescale_betas_zero_snr: true, timestep_spacing: "trailing" }),
    ...(zeroTerminalSnr && config._class_name === "PNDMScheduler" && DDIM),
  };
}
