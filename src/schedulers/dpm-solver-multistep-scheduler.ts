// DPM-Solver++ with one or two steps of memory, as an ordinary or a stochastic differential equation.

import { z } from "zod";
import { Tensor } from "../tensor/tensor.js";
import { MultistepSolver } from "./multistep-solver.js";
import { predictOriginal } from "./predictions.js";
import { combine, float32Pair, stepNoise } from "./samples.js";
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
import { noiseLevel } from "./sigmas.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  solver_order: z.literal([1, 2]).default(2),
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  algorithm_type: z.enum(["dpmsolver++", "sde-dpmsolver++"]).default("dpmsolver++"),
  // The last three are UniPC's and DEIS's, which diffusers takes for the default when a scheduler is exchanged.
  solver_type: z
    .enum(["midpoint", "heun", "bh1", "bh2", "logrho"])
    .default("midpoint")
    .transform((type) => (type === "heun" ? "heun" : "midpoint")),
  lower_order_final: switchOption(true),
  euler_at_final: switchOption(false),
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: switchOption(false).nullable(),
  use_beta_sigmas: offOption,
  use_lu_lambdas: offOption,
  use_flow_sigmas: offOption,
  flow_shift: z.number().nullable().default(1),
  use_dynamic_shifting: offOption,
  time_shift_type: z.string().default("exponential"),
  // null: written before the option existed, see the class
  final_sigmas_type: z.enum(["zero", "sigma_min"]).nullable().default(null),
  lambda_min_clipped: z.literal([Number.NEGATIVE_INFINITY, null]).default(Number.NEGATIVE_INFINITY),
  variance_type: unsetOption,
  timestep_spacing: timestepSpacingOption("linspace"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: switchOption(false),
});

/**
 * DPM-Solver++ in its multistep form, orders 1 and 2, as an ODE ("DPM++ 2M") or an SDE ("DPM++ 2M SDE").
 *
 * With alpha = 1/sqrt(sigma² + 1), s = sigma·alpha, lambda = log(alpha/s) and h the gain of lambda over the step:
 *
 * dpmsolver++: x' = (s'/s)·x + alpha'·(1 − e^−h)·D.
 * sde-dpmsolver++: x' = (s'/s)·e^−h·x + alpha'·(1 − e^−2h)·D + s'·sqrt(1 − e^−2h)·noise.
 *
 * D is the clean sample x_0 (order 1) or x_0 extrapolated from this and the previous step (order 2, midpoint:
 * D = x_0 + h/(2·h_prev)·(x_0 − x_0,prev)).
 *
 * A configuration without `final_sigmas_type` was written for diffusers before 0.24 and runs as it did there: it ends at
 * the smallest training noise level, visits no timestep twice, and rounds the noise levels of Karras spacing to those
 * of their timesteps. With `final_sigmas_type` it runs as in current diffusers.
 *
 * @see Lu et al. 2022, arXiv:2211.01095, algorithm 2 and section 5.3
 */
export class DPMSolverMultistepScheduler extends MultistepSolver<z.output<typeof SCHEMA>> {
  /** The clean sample that the previous step predicted, and the index of that step. */
  #previous: { original: Float32Array; index: number } | undefined;

  /**
   * @param config - diffusers' options; its defaults apply, but for `final_sigmas_type`.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("DPMSolverMultistepScheduler", parseSchedulerConfig("DPMSolverMultistepScheduler", SCHEMA, config));
  }

  protected override startRun(timesteps: number[], sigmas: readonly number[]): void {
    this.#previous = undefined;
    if (this.config.final_sigmas_type !== null) {
      super.startRun(timesteps, sigmas);
      return;
    }
    const distinct = timesteps.filter((t, i) => t !== timesteps[i - 1]);
    const levels = distinct.map((t) => this.trainingSigmas[t]!);
    super.startRun(distinct, levels);
  }

  protected override roundsKarrasTimesteps(): boolean {
    return this.config.final_sigmas_type === null || this.config.beta_schedule !== "squaredcos_cap_v2";
  }

  /** Needs `options.noise` in every step of "sde-dpmsolver++", also in the last one. */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    this.checkSize(where, sample, this.#previous?.original);
    const stochastic = this.config.algorithm_type === "sde-dpmsolver++";
    const noise = stochastic ? stepNoise(where, options.noise, sample) : undefined;
    const index = this.cursor.advance(t);
    const from = noiseLevel(this.sigmas[index]!);
    const to = noiseLevel(this.sigmas[index + 1]!);

    // 1. The clean sample
    const prediction = { output, sample: x, a: from.alpha, s: from.s };
    const original = predictOriginal(where, this.predictionType, prediction);

    // 2. Order 1: along the clean sample of this step. The SDE decays twice as fast, and adds noise.
    const h = to.lambda - from.lambda;
    const exponent = stochastic ? 2 * h : h;
    const decay = Math.expm1(-exponent); // e^−h − 1 or e^−2h − 1, from −1 (to pure signal) to 0
    const sampleFactor = (to.s / from.s) * (stochastic ? Math.exp(-h) : 1);
    const previous = this.#previous;
    let differenceFactor = 0;

    // 3. Order 2: the first difference, x_0 − x_0,prev, extrapolated over this step
    if (previous && previous.index === index - 1 && this.#orderAt(index) === 2) {
      const previousH = from.lambda - noiseLevel(this.sigmas[index - 1]!).lambda;
      differenceFactor = this.#differenceWeight(decay, exponent) * (h / previousH) * to.alpha;
      if (h === 0 || previousH === 0) differenceFactor = 0;
    }
    let prev = combine(sampleFactor, x, differenceFactor - to.alpha * decay, original);
    if (differenceFactor !== 0 && previous) prev = combine(1, prev, -differenceFactor, previous.original);
    if (noise) prev = combine(1, prev, to.s * Math.sqrt(Math.max(-decay, 0)), noise);

    this.#previous = { original, index };
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original.slice()),
    };
  }

  /** Short runs, and runs that end without noise, finish with order 1: the first difference is no use across the last gap. */
  #orderAt(index: number): number {
    const { solver_order, euler_at_final, lower_order_final, final_sigmas_type } = this.config;
    const steps = this.timesteps.length;
    const gentle = euler_at_final || (lower_order_final && steps < 15) || final_sigmas_type === "zero";
    return index === steps - 1 && gentle ? 1 : solver_order;
  }

  /** The factor of (x_0 − x_0,prev)/h_prev·h in x', without alpha'. */
  #differenceWeight(decay: number, exponent: number): number {
    return this.config.solver_type === "midpoint" ? -0.5 * decay : decay / exponent + 1;
  }
}
