// DDIM: deterministic sampling, with as much noise added as `eta` asks for.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { predictNoise, predictOriginal } from "./predictions.js";
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
  clip_sample: switchOption(true),
  clip_sample_range: z.number().gt(0).default(1),
  set_alpha_to_one: switchOption(true),
  steps_offset: stepsOffsetOption,
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  timestep_spacing: timestepSpacingOption("leading"),
  rescale_betas_zero_snr: switchOption(false),
});

/**
 * Denoising diffusion implicit models.
 *
 * x_{t'} = sqrt(ᾱ_{t'})·x_0 + sqrt(1 − ᾱ_{t'} − σ²)·noise_θ + σ·noise,
 * σ = eta·sqrt((1 − ᾱ_{t'})/(1 − ᾱ_t))·sqrt(1 − ᾱ_t/ᾱ_{t'}), t' = t − ⌊T/n⌋.
 *
 * @see Song et al. 2020, arXiv:2010.02502, equations 12 and 16
 */
export class DDIMScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  #steps: number | undefined;

  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("DDIMScheduler", parseSchedulerConfig("DDIMScheduler", SCHEMA, config));
  }

  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    this.timesteps = spacedTimesteps(this.className, { spacing, steps, trainTimesteps, offset });
    this.#steps = steps;
  }

  /** Needs `options.noise` where `options.eta` is above 0. May be called at any timestep of the schedule. */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    if (this.#steps === undefined) throw new ConfigError(`${where}: call setTimesteps first.`);
    const eta = options.eta ?? 0;
    if (!(eta >= 0 && eta <= 1)) throw new ConfigError(`${where}: eta must lie in [0, 1]; got ${eta}.`);
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);

    // 1. ᾱ at both ends of the stride
    const alphaProd = this.alphaAt(where, t);
    const previous = t - Math.floor(this.config.num_train_timesteps / this.#steps);
    const finalAlpha = this.config.set_alpha_to_one ? 1 : this.alphasCumprod[0]!;
    const alphaProdPrev = previous >= 0 ? this.alphasCumprod[previous]! : finalAlpha;

    // 2. The clean sample and the noise
    const prediction = { output, sample: x, a: Math.sqrt(alphaProd), s: Math.sqrt(1 - alphaProd) };
    const original = predictOriginal(where, this.predictionType, prediction);
    if (this.config.clip_sample) clampInPlace(original, this.config.clip_sample_range);
    const noise = options.useClippedModelOutput
      ? predictNoise("sample", { ...prediction, output: original })
      : predictNoise(this.predictionType, prediction);

    // 3. Back along the direction that points to x_t, equation 12
    const variance = ((1 - alphaProdPrev) / (1 - alphaProd)) * (1 - alphaProd / alphaProdPrev);
    const sigma = eta * Math.sqrt(Math.max(variance, 0));
    const direction = Math.sqrt(Math.max(1 - alphaProdPrev - sigma * sigma, 0));
    let prev = combine(Math.sqrt(alphaProdPrev), original, direction, noise);
    if (eta > 0) prev = combine(1, prev, sigma, stepNoise(where, options.noise, sample));

    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }
}
