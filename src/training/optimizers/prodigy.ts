// Prodigy: its options, and its formula on arrays in main memory. It has no graph form: its step size needs two sums over
// all parameters before any of them may move.

import { ConfigError } from "../../errors.js";
import {
  checkBetas,
  checkNonNegative,
  checkPositive,
  checkRate,
  checkSwitch,
  refuseUnknown,
} from "./hyperparameters.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "./optimizer.js";

/** Hyperparameters of Prodigy, with its authors' defaults. */
export interface ProdigyOptions {
  /** Factor γ on the step size that is found, 0 or more; leave it at 1. Default 1. */
  lr?: number;
  /** Decay rates β1 and β2 of the two moments, each in [0, 1). Default 0.9 and 0.999. */
  betas?: readonly [number, number];
  /** Decay rate of the sums that the distance is estimated from, in [0, 1). Default sqrt(β2). */
  beta3?: number;
  /** 0 or more. Default 1e-8. */
  eps?: number;
  /** Weight decay λ, decoupled, 0 or more. Default 0. */
  weightDecay?: number;
  /** Adam's bias correction. Default false. */
  useBiasCorrection?: boolean;
  /** Leaves the learning rate out of the estimate's denominator, for schedules with a warm-up. Default false. */
  safeguardWarmup?: boolean;
  /** The first estimate of the distance, above 0. Default 1e-6. */
  d0?: number;
  /** Factor on the estimate, above 0: what to change where steps are too large or too small. Default 1. */
  dCoef?: number;
  /** The estimate grows by no more than this factor in a step, 1 or more. Unlimited by default. */
  growthRate?: number;
}

/** The two moments, the sum of gradients s, and the parameter at the start. */
type Slot = "exp_avg" | "exp_avg_sq" | "s" | "p0";

/**
 * Adam that finds its own step size: d, an estimate of the distance from the start to a solution.
 *
 * With gradient g, δ = d·γ·correction, p0 the parameter at the start:
 * r ← β3·r + (d/d0)·δ·Σ g·(p0 − θ); s ← β3·s + (d/d0)·δ·g;
 * m ← β1·m + (1 − β1)·d·g; v ← β2·v + (1 − β2)·d²·g²; d ← max(d, dCoef·r/Σ|s|);
 * θ ← θ·(1 − λ·δ) − δ·m/(sqrt(v) + d·eps), δ with the d before, eps with the one after.
 * A step without any gradient, or at a learning rate of 0, changes nothing.
 *
 * @see Mishchenko & Defazio 2023, arXiv:2306.06101; prodigyopt 1.1
 */
export class Prodigy extends Optimizer<Slot> {
  readonly betas: readonly [number, number];
  readonly beta3: number;
  readonly eps: number;
  readonly weightDecay: number;
  readonly useBiasCorrection: boolean;
  readonly safeguardWarmup: boolean;
  readonly d0: number;
  readonly dCoef: number;
  readonly growthRate: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({
    lr = 1,
    betas = [0.9, 0.999],
    beta3,
    eps = 1e-8,
    weightDecay = 0,
    useBiasCorrection = false,
    safeguardWarmup = false,
    d0 = 1e-6,
    dCoef = 1,
    growthRate = Number.POSITIVE_INFINITY,
    ...unknown
  }: ProdigyOptions = {}) {
    const slots = { exp_avg: {}, exp_avg_sq: { nonNegative: true }, s: {}, p0: { start: "parameter" } } as const;
    super("Prodigy", lr, slots, { d: d0, d_max: d0, d_numerator: 0, k: 0 });
    refuseUnknown(this.name, unknown);
    this.betas = checkBetas(this.name, betas);
    checkNonNegative(this.name, "eps", eps);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    checkSwitch(this.name, "useBiasCorrection", useBiasCorrection);
    checkSwitch(this.name, "safeguardWarmup", safeguardWarmup);
    checkPositive(this.name, "d0", d0);
    checkPositive(this.name, "dCoef", dCoef);
    if (!(growthRate >= 1)) throw new ConfigError(`${this.name}: growthRate must be 1 or more; got ${growthRate}.`);
    this.beta3 = beta3 ?? Math.sqrt(this.betas[1]);
    checkRate(this.name, "beta3", this.beta3);
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.useBiasCorrection = useBiasCorrection;
    this.safeguardWarmup = safeguardWarmup;
    this.d0 = d0;
    this.dCoef = dCoef;
    this.growthRate = growthRate;
    // As the state keeps it, so that the first step compares equal.
    this.setNumber("d", d0);
    this.setNumber("d_max", d0);
  }

  /** The current estimate of the distance: times the learning rate, Adam's step size. */
  get distance(): number {
    return this.number("d");
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], { learningRate }: StepRate): void {
    const uneven = updates.find(({ factor }) => factor !== 1);
    if (uneven) {
      throw new ConfigError(
        `${this.name}: finds one step size for all, so that factors on the learning rate must be 0 or 1; ` +
          `got ${uneven.factor} for "${uneven.name}".`,
      );
    }
    if (learningRate === 0) return;
    const [beta1, beta2] = this.betas;
    const d = this.number("d");
    const k = this.number("k") + 1;
    const correction = this.useBiasCorrection ? Math.sqrt(1 - beta2 ** k) / (1 - beta1 ** k) : 1;
    const stepSize = d * learningRate * correction;
    const weight = (d / this.d0) * (this.safeguardWarmup ? d : stepSize);
    let travelled = 0;
    let sum = 0;
    for (const { parameter, gradient, state } of updates) {
      const { exp_avg: first, exp_avg_sq: second, s, p0 } = state;
      for (let i = 0; i < parameter.length; i++) {
        const g = gradient[i]!;
        travelled += g * (p0[i]! - parameter[i]!);
        first[i] = beta1 * first[i]! + d * (1 - beta1) * g;
        second[i] = beta2 * second[i]! + d * d * (1 - beta2) * g * g;
        s[i] = this.beta3 * s[i]! + weight * g;
        sum += Math.abs(s[i]!);
      }
    }
    if (sum === 0) return;
    const numerator = this.beta3 * this.number("d_numerator") + (d / this.d0) * stepSize * travelled;
    this.setDistance(d, (this.dCoef * numerator) / sum);
    this.setNumber("d_numerator", numerator);
    this.setNumber("k", k);
    const eps = this.number("d") * this.eps;
    const oneMinusDecay = 1 - this.weightDecay * stepSize;
    for (const { parameter, state } of updates) {
      const { exp_avg: first, exp_avg_sq: second } = state;
      for (let i = 0; i < parameter.length; i++) {
        const denominator = Math.sqrt(second[i]!) + eps;
        const change = denominator === 0 ? 0 : (stepSize * first[i]!) / denominator;
        parameter[i] = parameter[i]! * oneMinusDecay - change;
      }
    }
  }

  private setDistance(d: number, estimate: number): void {
    const start = d === this.d0Kept ? Math.max(d, estimate) : d;
    const largest = Math.max(this.number("d_max"), estimate);
    this.setNumber("d_max", largest);
    this.setNumber("d", Math.min(largest, start * this.growthRate));
  }

  /** d0 as the state keeps numbers. */
  private get d0Kept(): number {
    const high = Math.fround(this.d0);
    return high + Math.fround(this.d0 - high);
  }
}
