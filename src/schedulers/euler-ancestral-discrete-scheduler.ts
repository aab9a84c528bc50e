// Euler's method with fresh noise after every step.

import { z } from "zod";
import { Tensor } from "../tensor/tensor.js";
import { combine, float32Pair, stepNoise } from "./samples.js";
import type { SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import {
  noiseScheduleOptions,
  parseSchedulerConfig,
  predictionTypeOption,
  stepsOffsetOption,
  switchOption,
  timestepSpacingOption,
} from "./scheduler-config.js";
import { SigmaScheduler } from "./sigma-scheduler.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  prediction_type: predictionTypeOption,
  timestep_spacing: timestepSpacingOption("linspace"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
});

/**
 * Euler sampling with ancestral noise, in the variance-exploding view x = x_0 + sigma·noise.
 *
 * Every step goes further down than sigma_{i+1}, and noise brings it back up:
 * x ← x + (x − x_0)/sigma_i · (down − sigma_i) + up·noise, down = sigma_{i+1}²/sigma_i, up² = sigma_{i+1}² − down².
 * The model sees x/sqrt(sigma² + 1). With `timestep_spacing: "linspace"` the timesteps are fractional.
 *
 * diffusers has no `prediction_type: "sample"` here; it means the same as in the other samplers.
 *
 * @see Song et al. 2021, arXiv:2011.13456, appendix F (ancestral sampling of variance-exploding processes)
 */
export class EulerAncestralDiscreteScheduler extends SigmaScheduler<z.output<typeof SCHEMA>> {
  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("EulerAncestralDiscreteScheduler", parseSchedulerConfig("EulerAncestralDiscreteScheduler", SCHEMA, config));
  }

  /** Needs `options.noise` in every step; the last one draws it as well, as in diffusers, and does not use it. */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    const noise = stepNoise(where, options.noise, sample);
    const index = this.cursor.advance(t);
    const [from, to] = [this.sigmas[index]!, this.sigmas[index + 1]!];

    // 1. The clean sample
    const original = this.original(output, x, from);

    // 2. Down, in the terms of the deterministic step: x + (x − x_0)·r
    const down = (to * to) / from;
    const ratio = down / from - 1;
    const mean = combine(1 + ratio, x, -ratio, original);

    // 3. Up again
    const up = Math.sqrt(Math.max(to * to - down * down, 0));
    return {
      prevSample: new Tensor("float32", sample.shape, combine(1, mean, up, noise)),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }
}
