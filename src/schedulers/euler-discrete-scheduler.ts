// Euler's method along the noise levels of the training schedule.

import { z } from "zod";
import { Tensor } from "../tensor/tensor.js";
import { combine, float32Pair } from "./samples.js";
import type { SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import {
  noiseScheduleOptions,
  offOption,
  parseSchedulerConfig,
  predictionTypeOption,
  stepsOffsetOption,
  switchOption,
  timestepSpacingOption,
  unsetOption,
} from "./scheduler-config.js";
import { SigmaScheduler } from "./sigma-scheduler.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  prediction_type: predictionTypeOption,
  interpolation_type: z.literal("linear").default("linear"),
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: switchOption(false).nullable(),
  use_beta_sigmas: offOption,
  sigma_min: unsetOption,
  sigma_max: unsetOption,
  timestep_spacing: timestepSpacingOption("linspace"),
  timestep_type: z.literal("discrete").default("discrete"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).nullable().default("zero"),
});

/**
 * Euler sampling of the probability-flow ODE, in the variance-exploding view x = x_0 + sigma·noise.
 *
 * x ← x + (x − x_0)/sigma_i · (sigma_{i+1} − sigma_i). The model sees x/sqrt(sigma² + 1).
 * With `timestep_spacing: "linspace"`, and with Karras or exponential noise levels, the timesteps are fractional.
 *
 * @see Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn
 */
export class EulerDiscreteScheduler extends SigmaScheduler<z.output<typeof SCHEMA>> {
  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("EulerDiscreteScheduler", parseSchedulerConfig("EulerDiscreteScheduler", SCHEMA, config));
  }

  step(modelOutput: Tensor, t: number, sample: Tensor, _options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    const index = this.cursor.advance(t);
    const sigma = this.sigmas[index]!;

    // 1. The clean sample
    const original = this.original(output, x, sigma);

    // 2. x + (x − x_0)·r, with r = (sigma_{i+1} − sigma_i)/sigma_i
    const ratio = this.sigmas[index + 1]! / sigma - 1;
    const prev = combine(1 + ratio, x, -ratio, original);
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }
}
