// Sampling with latent consistency models: a clean sample in every step, then noise again.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { predictOriginal } from "./predictions.js";
import { clampInPlace, combine, float32Pair, stepNoise } from "./samples.js";
import type { SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import {
  MAX_TRAIN_TIMESTEPS,
  noiseScheduleOptions,
  offOption,
  parseSchedulerConfig,
  predictionTypeOption,
  stepsOffsetOption,
  switchOption,
  timestepSpacingOption,
} from "./scheduler-config.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps } from "./timestep-spacing.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  beta_start: noiseScheduleOptions.beta_start.unwrap().default(0.00085),
  beta_end: noiseScheduleOptions.beta_end.unwrap().default(0.012),
  beta_schedule: noiseScheduleOptions.beta_schedule.unwrap().default("scaled_linear"),
  original_inference_steps: z.int().min(1).max(MAX_TRAIN_TIMESTEPS).default(50),
  clip_sample: switchOption(false),
  clip_sample_range: z.number().gt(0).default(1),
  // The next three are options of diffusers' class without an effect on it: the spacing is that of the distillation.
  set_alpha_to_one: switchOption(true),
  steps_offset: stepsOffsetOption,
  timestep_spacing: timestepSpacingOption("leading"),
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  timestep_scaling: z.number().gt(0).default(10),
  rescale_betas_zero_snr: switchOption(false),
});

/** Standard deviation of the data that the boundary condition assumes. */
const SIGMA_DATA = 0.5;

/**
 * Multistep sampling of latent consistency models.
 *
 * d = c_out·x_0 + c_skip·x_t is the consistency function, c_skip = 0.25/(τ² + 0.25), c_out = τ/sqrt(τ² + 0.25),
 * τ = timestep_scaling·t; then x_{t'} = sqrt(ᾱ_{t'})·d + sqrt(1 − ᾱ_{t'})·noise, and d itself in the last step.
 * The timesteps are chosen among the `original_inference_steps` that the model was distilled on, whatever
 * `timestep_spacing` says.
 *
 * @see Luo et al. 2023, arXiv:2310.04378, algorithm 3
 */
export class LCMScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  #cursor: StepCursor | undefined;

  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("LCMScheduler", parseSchedulerConfig("LCMScheduler", SCHEMA, config));
    const { original_inference_steps: original, num_train_timesteps: trainTimesteps } = this.config;
    if (original > trainTimesteps) {
      throw new ConfigError(
        `LCMScheduler: original_inference_steps must be at most num_train_timesteps=${trainTimesteps}; got ${original}.`,
      );
    }
  }

  /** Takes at most `original_inference_steps`. */
  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, original_inference_steps: original } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    if (steps > original) {
      throw new ConfigError(
        `${this.className}.setTimesteps: steps must be at most original_inference_steps=${original}; got ${steps}.`,
      );
    }
    const stride = Math.floor(trainTimesteps / original);
    this.timesteps = Array.from({ length: steps }, (_, i) => {
      const skipped = Math.floor((i * original) / steps);
      return (original - skipped) * stride - 1;
    });
    this.#cursor = new StepCursor(this.className, this.timesteps);
  }

  /** Needs `options.noise` in every step but the last. */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    if (!this.#cursor) throw new ConfigError(`${where}: call setTimesteps first.`);
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    const alpha = this.alphaAt(where, t);

    // 1. The clean sample
    const prediction = { output, sample: x, a: Math.sqrt(alpha), s: Math.sqrt(1 - alpha) };
    const original = predictOriginal(where, this.predictionType, prediction);
    if (this.config.clip_sample) clampInPlace(original, this.config.clip_sample_range);

    // 2. The consistency function: the identity at timestep 0
    const time = t * this.config.timestep_scaling;
    const square = time ** 2 + SIGMA_DATA ** 2;
    const denoised = combine(time / Math.sqrt(square), original, SIGMA_DATA ** 2 / square, x);

    // 3. Noise again, up to the next timestep
    const next = this.timesteps[this.#cursor.find(t) + 1];
    const noise = next === undefined ? undefined : stepNoise(where, options.noise, sample);
    this.#cursor.advance(t);
    let prev = denoised;
    if (next !== undefined && noise) {
      const alphaNext = this.alphaAt(where, next);
      prev = combine(Math.sqrt(alphaNext), denoised, Math.sqrt(1 - alphaNext), noise);
    }
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, denoised.slice()),
    };
  }
}
