// UniPC: a multistep predictor whose every step is corrected by the model's next output.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { MultistepSolver } from "./multistep-solver.js";
import { predictNoise, predictOriginal } from "./predictions.js";
import { float32Pair } from "./samples.js";
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
  solver_order: z.literal([1, 2, 3]).default(2),
  prediction_type: predictionTypeOption,
  thresholding: offOption,
  predict_x0: switchOption(true),
  // The last three are DPM-Solver's and DEIS's, which diffusers takes for the default when a scheduler is exchanged.
  solver_type: z
    .enum(["bh1", "bh2", "midpoint", "heun", "logrho"])
    .default("bh2")
    .transform((type) => (type === "bh1" ? "bh1" : "bh2")),
  lower_order_final: switchOption(true),
  disable_corrector: z.array(z.int().min(0)).default([]),
  solver_p: unsetOption,
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: switchOption(false).nullable(),
  use_beta_sigmas: offOption,
  use_flow_sigmas: offOption,
  flow_shift: z.number().nullable().default(1),
  timestep_spacing: timestepSpacingOption("linspace"),
  steps_offset: stepsOffsetOption,
  final_sigmas_type: z
    .enum(["zero", "sigma_min"])
    .nullable()
    .default("zero")
    .transform((type) => type ?? "zero"),
  rescale_betas_zero_snr: switchOption(false),
  use_dynamic_shifting: offOption,
  time_shift_type: z.string().default("exponential"),
  sigma_min: unsetOption,
  sigma_max: unsetOption,
  shift_terminal: unsetOption,
});

/** A model output as the solver integrates it, and where it was made. */
interface Point {
  /** The clean sample, or the noise where `predict_x0` is off. */
  value: Float32Array;
  /** Noise level of the run. */
  sigma: number;
}

/**
 * UniPC, orders 1 to 3: UniP predicts the next sample, and UniC of the same order corrects it once the model has seen it.
 *
 * In the terms of DPM-Solver++ (x = alpha·x_0 + s·noise, lambda = log(alpha/s), h the gain of lambda) and with m_0 the
 * clean sample at the start of the step, m_k those before it, r_k = (lambda_k − lambda_0)/h and h̃ = −h:
 *
 * x' = (s'/s)·x − alpha'·(e^h̃ − 1)·m_0 − alpha'·B·Σ_k ρ_k·(m_k − m_0)/r_k,
 *
 * B = h̃ (bh1) or e^h̃ − 1 (bh2). The ρ solve Σ_k ρ_k·r_k^(i−1) = i!·φ_{i+1}(h̃)·h̃/B for i = 1, 2, …, with
 * φ_1(h̃) = (e^h̃ − 1)/h̃ and φ_{i+1}(h̃) = (φ_i(h̃) − 1/i!)/h̃; but UniP-2 and UniC-1 take ρ = ½. The corrector has one
 * more point, that of the next sample itself, r = 1. With `predict_x0` off, noise takes the place of clean samples,
 * alpha and s change places and h̃ = h.
 *
 * @see Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2 with equation 9
 */
export class UniPCMultistepScheduler extends MultistepSolver<z.output<typeof SCHEMA>> {
  /** The last model outputs, newest first, at most `solver_order`. */
  #points: Point[] = [];
  /** Where the last step began, corrected, and its order. */
  #last: { x: Float32Array; order: number; index: number } | undefined;

  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("UniPCMultistepScheduler", parseSchedulerConfig("UniPCMultistepScheduler", SCHEMA, config));
    if (!this.config.predict_x0 && this.config.final_sigmas_type === "zero") {
      throw new ConfigError(
        'UniPCMultistepScheduler: predict_x0=false needs final_sigmas_type="sigma_min"; got "zero", ' +
          "where the noise is not defined. Check them in scheduler_config.json.",
      );
    }
  }

  protected override startRun(timesteps: number[], sigmas: readonly number[]): void {
    super.startRun(timesteps, sigmas);
    this.#points = [];
    this.#last = undefined;
  }

  step(modelOutput: Tensor, t: number, sample: Tensor, _options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    const [output, given] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    this.checkSize(where, sample, this.#last?.x);
    const index = this.cursor.advance(t);
    const [from, to] = [this.sigmas[index]!, this.sigmas[index + 1]!];

    // 1. What is integrated: the clean sample or the noise
    const { alpha: a, s } = noiseLevel(from);
    const prediction = { output, sample: given, a, s };
    const original = predictOriginal(where, this.predictionType, prediction);
    const value = this.config.predict_x0 ? original : predictNoise(this.predictionType, prediction).slice();
    const here: Point = { value, sigma: from };

    // 2. UniC: the last step again, now that its end is known
    let x = given;
    const last = this.#last;
    if (last && last.index === index - 1 && !this.config.disable_corrector.includes(last.index)) {
      x = this.#advance(last.x, from, this.#points.slice(0, last.order), here) ?? x;
    }

    // 3. UniP
    const { solver_order: highest, lower_order_final: lowers } = this.config;
    this.#points = [here, ...this.#points.slice(0, highest - 1)];
    const remaining = lowers ? this.timesteps.length - index : highest;
    const order = to === 0 ? 1 : Math.min(highest, remaining, this.#points.length);
    const prev = this.#advance(x, to, this.#points.slice(0, order)) ?? x.slice();
    this.#last = { x: x.slice(), order, index };
    return {
      prevSample: new Tensor("float32", sample.shape, prev as Float32Array<ArrayBuffer>),
      predOriginalSample: new Tensor("float32", sample.shape, original.slice()),
    };
  }

  /**
   * From the noise level of the newest point to another.
   *
   * @param points - As many as the order, newest first.
   * @param next - The model's output at the end of the step, for the corrector.
   * @returns Nothing where the two noise levels are the same.
   */
  #advance(
    x: Float32Array,
    toSigma: number,
    points: readonly Point[],
    next?: Point,
  ): Float32Array<ArrayBuffer> | undefined {
    const newest = points[0]!;
    const [from, to] = [noiseLevel(newest.sigma), noiseLevel(toSigma)];
    const gain = to.lambda - from.lambda;
    if (gain === 0) return undefined;
    const { predict_x0: ofSample, solver_type: type } = this.config;
    const signed = ofSample ? -gain : gain;
    const growth = Math.expm1(signed);
    const scale = ofSample ? to.alpha : to.s;
    const others = next ? [...points.slice(1), next] : points.slice(1);

    // 1. Along the newest point
    const terms: [number, Float32Array][] = [[ofSample ? to.s / from.s : to.alpha / from.alpha, x]];
    let weight = -scale * growth;

    // 2. The differences to the others
    if (others.length > 0) {
      const bend = type === "bh1" ? signed : growth;
      const ratios = others.map(({ sigma }) => (noiseLevel(sigma).lambda - from.lambda) / gain);
      const rho = others.length === 1 ? [0.5] : solveVandermonde(ratios, orderConditions(signed, bend, others.length));
      for (const [k, { value }] of others.entries()) {
        const factor = (-scale * bend * rho[k]!) / ratios[k]!;
        terms.push([factor, value]);
        weight -= factor;
      }
    }
    terms.push([weight, newest.value]);
    return weightedSum(terms);
  }
}

/** i!·φ_{i+1}(h̃)·h̃/B for i = 1 … count. */
function orderConditions(signed: number, bend: number, count: number): number[] {
  const conditions: number[] = [];
  let factorial = 1;
  let phi = Math.expm1(signed) / signed - 1; // φ_{i+1}·h̃
  for (let i = 1; i <= count; i++) {
    conditions.push((phi * factorial) / bend);
    factorial *= i + 1;
    phi = phi / signed - 1 / factorial;
  }
  return conditions;
}

/** Solves Σ_k y_k·nodes_k^i = right_i, i = 0 … n − 1, by elimination with the nodes' differences (n is 2 or 3). */
function solveVandermonde(nodes: readonly number[], right: readonly number[]): number[] {
  const y = [...right];
  const n = y.length;
  for (let k = 0; k < n - 1; k++) for (let i = n - 1; i > k; i--) y[i] = y[i]! - nodes[k]! * y[i - 1]!;
  for (let k = n - 2; k >= 0; k--) {
    for (let i = k + 1; i < n; i++) y[i] = y[i]! / (nodes[i]! - nodes[i - k - 1]!);
    for (let i = k; i < n - 1; i++) y[i] = y[i]! - y[i + 1]!;
  }
  return y;
}

function weightedSum(terms: readonly [weight: number, values: Float32Array][]): Float32Array<ArrayBuffer> {
  const result = new Float32Array(terms[0]![1].length);
  for (let i = 0; i < result.length; i++) {
    let sum = 0;
    for (const [weight, values] of terms) if (weight !== 0) sum += weight * values[i]!;
    result[i] = sum;
  }
  return result;
}
