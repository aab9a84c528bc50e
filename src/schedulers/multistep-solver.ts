// What DPM-Solver and UniPC share: the timesteps and noise levels of a run, in the variance-preserving view
// x = alpha·x_0 + s·noise.

import { ConfigError, ShapeError } from "../errors.js";
import type { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler, type DiscreteSchedulerConfig } from "./discrete-scheduler.js";
import { combinePerSample } from "./samples.js";
import {
  nearestTimestepOfSigma,
  noiseLevel,
  type SigmaSchedule,
  sigmaAt,
  sigmaSchedule,
  timestepOfSigma,
  trainingSigmas,
} from "./sigmas.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps, spacedTimesteps, type TimestepSpacing } from "./timestep-spacing.js";

/** The least that a multistep solver's configuration has. */
export interface MultistepSolverConfig extends DiscreteSchedulerConfig {
  readonly timestep_spacing: TimestepSpacing;
  readonly steps_offset: number;
  readonly use_karras_sigmas: boolean | null;
  readonly use_exponential_sigmas: boolean | null;
  readonly final_sigmas_type: "zero" | "sigma_min" | null;
}

/** Base of the solvers; a subclass adds the step, and resets its history in `setTimesteps`. */
export abstract class MultistepSolver<C extends MultistepSolverConfig> extends DiscreteScheduler<C> {
  /** Noise levels of the run, one more than there are timesteps; the last is where the run ends. */
  sigmas: Float64Array;
  protected cursor: StepCursor;
  protected readonly trainingSigmas: Float64Array;
  readonly #sigmaSchedule: SigmaSchedule | undefined;

  /**
   * @param className - The scheduler's name, for messages.
   * @param config - Checked and complete.
   * @throws {ConfigError} If it asks for two sigma schedules.
   */
  constructor(className: string, config: C) {
    super(className, config);
    this.#sigmaSchedule = sigmaSchedule(className, config);
    this.trainingSigmas = trainingSigmas(this.alphasCumprod);
    this.sigmas = Float64Array.of(...this.trainingSigmas.toReversed(), this.finalSigma());
    this.cursor = new StepCursor(className, this.timesteps);
  }

  /** With Karras or exponential noise levels the same timestep may occur twice, at different noise levels. */
  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    const table = this.trainingSigmas;
    if (this.#sigmaSchedule) {
      const sigmas = [...this.#sigmaSchedule(table[0]!, table.at(-1)!, steps)];
      const integer = this.#continuousTimestep();
      this.startRun(
        sigmas.map((sigma) => integer(sigma)),
        sigmas,
      );
      return;
    }
    // leading and linspace lay out one step more than asked for and leave out the last, which is the end of the run
    const layout = spacing === "trailing" ? steps : steps + 1;
    if (spacing === "leading" && layout > trainTimesteps) {
      throw new ConfigError(
        `${this.className}.setTimesteps: leading spacing needs steps below num_train_timesteps=${trainTimesteps}; got ${steps}.`,
      );
    }
    const spaced = spacedTimesteps(this.className, { spacing, steps: layout, trainTimesteps, offset });
    const timesteps = spaced.slice(0, steps);
    this.startRun(
      timesteps,
      timesteps.map((t) => sigmaAt(table, t)),
    );
  }

  override setBeginIndex(index: number): void {
    this.cursor.begin(index);
  }

  /** x = alpha_t·x_0 + s_t·noise at the noise levels of the run; every timestep must be one of `timesteps`. */
  override addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.addNoise`;
    return combinePerSample(where, ["original", "noise"], [original, noise], timesteps, (t) => {
      const { alpha, s } = noiseLevel(this.sigmas[this.cursor.find(t)]!);
      return [alpha, s];
    });
  }

  /** @param sigmas - One per timestep. */
  protected startRun(timesteps: number[], sigmas: readonly number[]): void {
    this.timesteps = timesteps;
    this.sigmas = Float64Array.of(...sigmas, this.finalSigma());
    this.cursor = new StepCursor(this.className, timesteps);
  }

  /** The noise level where a run ends. */
  protected finalSigma(): number {
    return this.config.final_sigmas_type === "zero" ? 0 : this.trainingSigmas[0]!;
  }

  /** Whether Karras noise levels are told to the model by the nearest timestep, or by the next one below. */
  protected roundsKarrasTimesteps(): boolean {
    return true;
  }

  /**
   * Throws unless a sample is as large as the one before it.
   *
   * @throws {ShapeError} Otherwise.
   */
  protected checkSize(where: string, sample: Tensor, before: Float32Array | undefined): void {
    if (before && before.length !== sample.data.length) {
      throw new ShapeError(
        `${where}: the sample must keep its shape during a run; got [${sample.shape.join(",")}], ` +
          `${before.length} elements before.`,
      );
    }
  }

  /** The timestep that the model is told at a noise level of the sigma schedule. diffusers rounds some down, and so do we. */
  #continuousTimestep(): (sigma: number) => number {
    const table = this.trainingSigmas;
    const rounds = this.config.use_karras_sigmas && this.roundsKarrasTimesteps();
    if (rounds) return (sigma) => nearestTimestepOfSigma(table, sigma);
    return (sigma) => Math.floor(timestepOfSigma(table, sigma));
  }
}
