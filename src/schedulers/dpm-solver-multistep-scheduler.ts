// DPM-Solver++ with one or two steps of memory.

import { z } from "zod";
import { ConfigError, ShapeError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { predictOriginal } from "./predictions.js";
import { combine, combinePerSample, float32Pair } from "./samples.js";
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
import { karrasSigmas, nearestTimestepOfSigma, trainingSigmas } from "./sigmas.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps, spacedTimesteps } from "./timestep-spacing.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  solver_order: z.literal([1, 2]).default(2),
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  algorithm_type: z.literal("dpmsolver++").default("dpmsolver++"),
  solver_type: z.enum(["midpoint", "heun"]).default("midpoint"),
  lower_order_final: switchOption(true),
  euler_at_final: switchOption(false),
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: offOption,
  use_beta_sigmas: offOption,
  use_lu_lambdas: offOption,
  use_flow_sigmas: offOption,
  flow_shift: z.number().nullable().default(1),
  use_dynamic_shifting: offOption,
  time_shift_type: z.string().default("exponential"),
  // Versions of diffusers without this option ended at the smallest training noise level; a file that does not name
  // it was tuned with that.
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("sigma_min"),
  lambda_min_clipped: z.literal([Number.NEGATIVE_INFINITY, null]).default(Number.NEGATIVE_INFINITY),
  variance_type: unsetOption,
  timestep_spacing: timestepSpacingOption("linspace"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
});

/**
 * DPM-Solver++ in its multistep form (often called "DPM++ 2M"), orders 1 and 2.
 *
 * With alpha = 1/sqrt(sigma² + 1), s = sigma·alpha, lambda = log(alpha/s) and h the gain of lambda over the step:
 * x' = (s'/s)·x + alpha'·(1 − e^−h)·D, where D is the clean sample x_0 (order 1) or x_0 extrapolated from this and the
 * previous step (order 2, midpoint: D = x_0 + h/(2·h_prev)·(x_0 − x_0,prev)).
 *
 * @see Lu et al. 2022, arXiv:2211.01095, algorithm 2
 */
export class DPMSolverMultistepScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  /** Noise levels of the run, one more than there are timesteps; the last is where the run ends. */
  sigmas: Float64Array;
  readonly #trainingSigmas: Float64Array;
  #cursor: StepCursor;
  /** The clean sample that the previous step predicted, and the index of that step. */
  #previous: { original: Float32Array; index: number } | undefined;

  /**
   * @param config - diffusers' options; its defaults apply, but `final_sigmas_type` is "sigma_min" unless given.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("DPMSolverMultistepScheduler", parseSchedulerConfig("DPMSolverMultistepScheduler", SCHEMA, config));
    this.#trainingSigmas = trainingSigmas(this.alphasCumprod);
    this.sigmas = Float64Array.of(...this.#trainingSigmas.toReversed(), this.#finalSigma());
    this.#cursor = new StepCursor(this.className, this.timesteps);
  }

  /** The run is shorter than `steps` where rounding to integers makes neighbouring timesteps equal. */
  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    const table = this.#trainingSigmas;
    let timesteps: number[];
    if (this.config.use_karras_sigmas) {
      const ladder = karrasSigmas(table[0]!, table.at(-1)!, steps);
      timesteps = Array.from(ladder, (sigma) => nearestTimestepOfSigma(table, sigma));
    } else {
      // leading and linspace lay out one step more than asked for and leave out the last, which is the end of the run
      const layout = spacing === "trailing" ? steps : steps + 1;
      if (spacing === "leading" && layout > trainTimesteps) {
        throw new ConfigError(
          `${this.className}.setTimesteps: leading spacing needs steps below num_train_timesteps=${trainTimesteps}; got ${steps}.`,
        );
      }
      const spaced = spacedTimesteps(this.className, { spacing, steps: layout, trainTimesteps, offset });
      timesteps = spaced.slice(0, steps);
    }
    this.timesteps = timesteps.filter((t, i) => t !== timesteps[i - 1]);
    // The noise level of the rounded timestep, also with Karras spacing: the one the model is told.
    const sigmas = this.timesteps.map((t) => table[t]!);
    this.sigmas = Float64Array.of(...sigmas, this.#finalSigma());
    this.#cursor = new StepCursor(this.className, this.timesteps);
    this.#previous = undefined;
  }

  step(modelOutput: Tensor, t: number, sample: Tensor, _options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    if (this.#previous && this.#previous.original.length !== x.length) {
      throw new ShapeError(
        `${where}: the sample must keep its shape during a run; got [${sample.shape.join(",")}], ` +
          `${this.#previous.original.length} elements before.`,
      );
    }
    const index = this.#cursor.advance(t);
    const from = noiseLevel(this.sigmas[index]!);
    const to = noiseLevel(this.sigmas[index + 1]!);

    // 1. The clean sample
    const prediction = { output, sample: x, a: from.alpha, s: from.s };
    const original = predictOriginal(where, this.predictionType, prediction);

    // 2. Order 1: along the clean sample of this step
    const gain = to.lambda - from.lambda;
    const decay = Math.expm1(-gain); // e^−h − 1, from −1 (to pure signal) to 0
    const previous = this.#previous;
    let memory = 0;

    // 3. Order 2: the slope since the previous step, weighted by how far it is extrapolated
    if (previous && previous.index === index - 1 && this.#orderAt(index) === 2) {
      const gainBefore = from.lambda - noiseLevel(this.sigmas[index - 1]!).lambda;
      const ratio = gain / gainBefore;
      memory = this.#slopeWeight(decay, gain) * ratio * to.alpha;
      if (gain === 0 || gainBefore === 0) memory = 0;
    }
    const prev = combine(to.s / from.s, x, memory - to.alpha * decay, original);
    if (memory !== 0 && previous) {
      for (let i = 0; i < prev.length; i++) prev[i] = prev[i]! - memory * previous.original[i]!;
    }

    this.#previous = { original, index };
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original.slice()),
    };
  }

  /** x = alpha_t·x_0 + s_t·noise at the noise levels of the run; every timestep must be one of `timesteps`. */
  override addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.addNoise`;
    return combinePerSample(where, ["original", "noise"], [original, noise], timesteps, (t) => {
      const { alpha, s } = noiseLevel(this.sigmas[this.#cursor.find(t)]!);
      return [alpha, s];
    });
  }

  #finalSigma(): number {
    return this.config.final_sigmas_type === "zero" ? 0 : this.#trainingSigmas[0]!;
  }

  /** Short runs, and runs that end without noise, finish with order 1: the slope is no use across the last gap. */
  #orderAt(index: number): number {
    const { solver_order, euler_at_final, lower_order_final, final_sigmas_type } = this.config;
    const steps = this.timesteps.length;
    const gentle = euler_at_final || (lower_order_final && steps < 15) || final_sigmas_type === "zero";
    return index === steps - 1 && gentle ? 1 : solver_order;
  }

  /** The factor of the slope (x_0 − x_0,prev)/h_prev·h in x', without alpha'. */
  #slopeWeight(decay: number, gain: number): number {
    return this.config.solver_type === "midpoint" ? -0.5 * decay : decay / gain + 1;
  }
}

/** A noise level in the variance-preserving view: x = alpha·x_0 + s·noise, lambda = log(alpha/s). */
function noiseLevel(sigma: number): { alpha: number; s: number; lambda: number } {
  const alpha = 1 / Math.hypot(sigma, 1);
  return { alpha, s: sigma * alpha, lambda: -Math.log(sigma) };
}
