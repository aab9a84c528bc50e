// DDPM: ancestral sampling. Also the usual choice for adding noise in training.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { predictOriginal } from "./predictions.js";
import { clampInPlace, combine, float32Pair, stepNoise } from "./samples.js";
import type { SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import {
  noiseScheduleOptions,
  offOption,
  parseSchedulerConfig,
  predictionTypeOption,
  stepsOffsetOption,
  switchOption,
  timestepSpacingOption,
} from "./scheduler-config.js";
import { checkSteps, spacedTimesteps } from "./timestep-spacing.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  variance_type: z.enum(["fixed_small", "fixed_small_log", "fixed_large"]).default("fixed_small"),
  clip_sample: switchOption(true),
  clip_sample_range: z.number().gt(0).default(1),
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  timestep_spacing: timestepSpacingOption("leading"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
});

/**
 * Denoising diffusion probabilistic models.
 *
 * x_{t'} = μ(x_t, x_0) + sqrt(v)·noise, t' the next timestep: the posterior of the forward process given the predicted
 * clean sample, equation 7 of the paper with β and α taken over the stride from t' to t.
 *
 * @see Ho et al. 2020, arXiv:2006.11239
 */
export class DDPMScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("DDPMScheduler", parseSchedulerConfig("DDPMScheduler", SCHEMA, config));
  }

  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    this.timesteps = spacedTimesteps(this.className, { spacing, steps, trainTimesteps, offset });
  }

  /** Needs `options.noise` at every timestep but 0. May be called at any timestep of the run, in any order. */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);

    // 1. ᾱ at both ends of the stride
    const alphaProd = this.alphaAt(where, t);
    const index = this.timesteps.indexOf(t);
    if (index < 0) {
      throw new ConfigError(`${where}: t=${t} is none of the timesteps; pass an element of scheduler.timesteps.`);
    }
    const next = this.timesteps[index + 1];
    const alphaProdPrev = next === undefined ? 1 : this.alphasCumprod[next]!;
    const betaProd = 1 - alphaProd;
    const betaProdPrev = 1 - alphaProdPrev;
    const alpha = alphaProd / alphaProdPrev;
    const beta = 1 - alpha;

    // 2. The clean sample, equation 15
    const prediction = { output, sample: x, a: Math.sqrt(alphaProd), s: Math.sqrt(betaProd) };
    const original = predictOriginal(where, this.predictionType, prediction);
    if (this.config.clip_sample) clampInPlace(original, this.config.clip_sample_range);

    // 3. The posterior's mean, equation 7
    let prev = combine(
      (Math.sqrt(alphaProdPrev) * beta) / betaProd,
      original,
      (Math.sqrt(alpha) * betaProdPrev) / betaProd,
      x,
    );

    // 4. Its variance: that of the posterior (small) or of the forward step (large)
    if (t > 0) {
      const small = Math.max((betaProdPrev / betaProd) * beta, 1e-20);
      const variance = this.config.variance_type === "fixed_large" ? beta : small;
      prev = combine(1, prev, Math.sqrt(variance), stepNoise(where, options.noise, sample));
    }
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }
}
