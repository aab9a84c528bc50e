// What the Euler samplers share: they walk along noise levels in the variance-exploding view x = x_0 + sigma·noise.

import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler, type DiscreteSchedulerConfig } from "./discrete-scheduler.js";
import { combine, combinePerSample, float32 } from "./samples.js";
import { type SigmaSchedule, sigmaAt, sigmaSchedule, timestepOfSigma, trainingSigmas } from "./sigmas.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps, spacedTimesteps, type TimestepSpacing } from "./timestep-spacing.js";

/** The least that the configuration of a scheduler over noise levels has. */
export interface SigmaSchedulerConfig extends DiscreteSchedulerConfig {
  readonly timestep_spacing: TimestepSpacing;
  readonly steps_offset: number;
  readonly use_karras_sigmas?: boolean | null;
  readonly use_exponential_sigmas?: boolean | null;
  /** Where a run ends: without noise, which is the default, or at the smallest training noise level. */
  readonly final_sigmas_type?: "zero" | "sigma_min" | null;
}

/** Base of the samplers; a subclass adds the step. The model sees x/sqrt(sigma² + 1). */
export abstract class SigmaScheduler<C extends SigmaSchedulerConfig> extends DiscreteScheduler<C> {
  /** Noise levels of the run, one more than there are timesteps; the last is where the run ends. */
  sigmas: Float64Array;
  protected cursor: StepCursor;
  readonly #trainingSigmas: Float64Array;
  readonly #sigmaSchedule: SigmaSchedule | undefined;

  /**
   * @param className - The scheduler's name, for messages.
   * @param config - Checked and complete.
   * @throws {ConfigError} If it asks for two sigma schedules.
   */
  constructor(className: string, config: C) {
    super(className, config);
    this.#sigmaSchedule = sigmaSchedule(className, config);
    this.#trainingSigmas = trainingSigmas(this.alphasCumprod);
    this.sigmas = Float64Array.of(...this.#trainingSigmas.toReversed(), 0);
    this.cursor = new StepCursor(className, this.timesteps);
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
    if (this.#sigmaSchedule) {
      sigmas = [...this.#sigmaSchedule(sigmas.at(-1)!, sigmas[0]!, steps)];
      timesteps = sigmas.map((sigma) => timestepOfSigma(table, sigma));
    }
    this.sigmas = Float64Array.of(...sigmas, this.config.final_sigmas_type === "sigma_min" ? table[0]! : 0);
    // float32, so that a timestep survives being put into a float32 tensor
    this.timesteps = timesteps.map(Math.fround);
    this.cursor = new StepCursor(this.className, this.timesteps);
  }

  override setBeginIndex(index: number): void {
    this.cursor.begin(index);
  }

  override scaleModelInput(sample: Tensor, t: number): Tensor<"float32"> {
    const x = float32(`${this.className}.scaleModelInput`, "sample", sample);
    const scale = 1 / Math.hypot(this.sigmas[this.cursor.find(t)]!, 1);
    return new Tensor("float32", sample.shape, combine(scale, x, 0, x));
  }

  /** x = x_0 + sigma_t·noise; every timestep must be one of `timesteps`. */
  override addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.addNoise`;
    return combinePerSample(where, ["original", "noise"], [original, noise], timesteps, (t) => [
      1,
      this.sigmas[this.cursor.find(t)]!,
    ]);
  }

  /**
   * The clean sample that a model output stands for.
   *
   * epsilon: x − sigma·output; v_prediction: x/(sigma² + 1) − sigma/sqrt(sigma² + 1)·output; sample: output.
   *
   * @returns A new array.
   */
  protected original(output: Float32Array, x: Float32Array, sigma: number): Float32Array<ArrayBuffer> {
    if (this.predictionType === "epsilon") return combine(1, x, -sigma, output);
    if (this.predictionType === "sample") return combine(1, output, 0, x);
    return combine(1 / (sigma * sigma + 1), x, -sigma / Math.hypot(sigma, 1), output);
  }
}
