// Euler's method along the noise levels of the training schedule.

import { z } from "zod";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { combine, combinePerSample, float32, float32Pair } from "./samples.js";
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
import { karrasSigmas, sigmaAt, timestepOfSigma, trainingSigmas } from "./sigmas.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps, spacedTimesteps } from "./timestep-spacing.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  prediction_type: predictionTypeOption,
  interpolation_type: z.literal("linear").default("linear"),
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: offOption,
  use_beta_sigmas: offOption,
  sigma_min: unsetOption,
  sigma_max: unsetOption,
  timestep_spacing: timestepSpacingOption("linspace"),
  timestep_type: z.literal("discrete").default("discrete"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
});

/**
 * Euler sampling of the probability-flow ODE, in the variance-exploding view x = x_0 + sigma·noise.
 *
 * x ← x + (x − x_0)/sigma_i · (sigma_{i+1} − sigma_i). The model sees x/sqrt(sigma² + 1).
 * With `timestep_spacing: "linspace"` or Karras noise levels the timesteps are fractional.
 *
 * @see Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn
 */
export class EulerDiscreteScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  /** Noise levels of the run, one more than there are timesteps; the last is where the run ends. */
  sigmas: Float64Array;
  readonly #trainingSigmas: Float64Array;
  #cursor: StepCursor;

  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("EulerDiscreteScheduler", parseSchedulerConfig("EulerDiscreteScheduler", SCHEMA, config));
    this.#trainingSigmas = trainingSigmas(this.alphasCumprod);
    this.sigmas = Float64Array.of(...this.#trainingSigmas.toReversed(), 0);
    this.#cursor = new StepCursor(this.className, this.timesteps);
  }

  override get initNoiseSigma(): number {
    const max = this.sigmas[0]!;
    return this.config.timestep_spacing === "leading" ? Math.hypot(max, 1) : max;
  }

  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    const table = this.#trainingSigmas;
    let timesteps = spacedTimesteps(this.className, { spacing, steps, trainTimesteps, offset, round: false });
    let sigmas = timesteps.map((t) => sigmaAt(table, t));
    if (this.config.use_karras_sigmas) {
      sigmas = [...karrasSigmas(sigmas.at(-1)!, sigmas[0]!, steps)];
      timesteps = sigmas.map((sigma) => timestepOfSigma(table, sigma));
    }
    this.sigmas = Float64Array.of(...sigmas, this.config.final_sigmas_type === "zero" ? 0 : table[0]!);
    // float32, so that a timestep survives being put into a float32 tensor
    this.timesteps = timesteps.map(Math.fround);
    this.#cursor = new StepCursor(this.className, this.timesteps);
  }

  override scaleModelInput(sample: Tensor, t: number): Tensor<"float32"> {
    const x = float32(`${this.className}.scaleModelInput`, "sample", sample);
    const scale = 1 / Math.hypot(this.sigmas[this.#cursor.find(t)]!, 1);
    return new Tensor("float32", sample.shape, combine(scale, x, 0, x));
  }

  step(modelOutput: Tensor, t: number, sample: Tensor, _options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    const index = this.#cursor.advance(t);
    const sigma = this.sigmas[index]!;

    // 1. The clean sample
    let original: Float32Array<ArrayBuffer>;
    if (this.predictionType === "epsilon") original = combine(1, x, -sigma, output);
    else if (this.predictionType === "sample") original = combine(1, output, 0, x);
    else original = combine(1 / (sigma * sigma + 1), x, -sigma / Math.hypot(sigma, 1), output);

    // 2. x + (x − x_0)·r, with r = (sigma_{i+1} − sigma_i)/sigma_i
    const ratio = this.sigmas[index + 1]! / sigma - 1;
    const prev = combine(1 + ratio, x, -ratio, original);
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }

  /** x = x_0 + sigma_t·noise; every timestep must be one of `timesteps`. */
  override addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.addNoise`;
    return combinePerSample(where, ["original", "noise"], [original, noise], timesteps, (t) => [
      1,
      this.sigmas[this.#cursor.find(t)]!,
    ]);
  }
}
