// Samplers that can be asked for by name, over the noise schedule that a model was trained on.

import { ConfigError } from "../errors.js";
import { createScheduler, isFlowMatching, type Scheduler, type SchedulerConfig } from "../schedulers/index.js";
import { FLOW_EULER, SAMPLERS, type SamplerName } from "./generation-settings/sampler-names.js";

/** What a sampler's configuration has beside its class. */
const EXTRAS: Partial<Record<SamplerName, SchedulerConfig>> = {
  dpmpp_2m: { final_sigmas_type: "zero" },
  dpmpp_2m_sde: { algorithm_type: "sde-dpmsolver++", final_sigmas_type: "zero" },
};

/** Options that mean the same in every scheduler, and describe the model rather than the sampler. */
const SHARED = [
  "num_train_timesteps",
  "beta_start",
  "beta_end",
  "beta_schedule",
  "trained_betas",
  "prediction_type",
  "timestep_spacing",
  "steps_offset",
  "rescale_betas_zero_snr",
  "set_alpha_to_one",
];

/**
 * Another scheduler over the noise schedule of the pipeline's own. A model of flow matching has one sampler, `euler`.
 *
 * @throws {ConfigError} If the sampler cannot walk the model's noise.
 */
export function schedulerFor({ schedulerConfig }: { schedulerConfig: SchedulerConfig }, name: SamplerName): Scheduler {
  if (isFlowMatching(schedulerConfig)) {
    if (name === "euler") return createScheduler({ ...schedulerConfig, _class_name: FLOW_EULER });
    throw new ConfigError(`sampler ${name}: this model is of flow matching, which only euler samples here.`);
  }
  return createScheduler({
    ...Object.fromEntries(
      SHARED.filter((key) => schedulerConfig[key] !== undefined).map((key) => [key, schedulerConfig[key]]),
    ),
    // Latents are not confined to −1 … 1; the Runge-Kutta start of PNDM is not used by latent diffusion.
    clip_sample: false,
    skip_prk_steps: true,
    _class_name: SAMPLERS[name].className,
    ...EXTRAS[name],
  });
}
