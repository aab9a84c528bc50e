// AdamW: its options, its formula on arrays in main memory, and the same as graph nodes.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { compileKernel, onceCompiled, quads } from "../../tensor/simd-kernel.js";
import { ElementwiseOptimizer, type GraphStep } from "./elementwise-optimizer.js";
import { checkBetas, checkNonNegative, refuseUnknown } from "./hyperparameters.js";
import type { Accompaniment, ParameterUpdate, StepRate } from "./optimizer.js";

const { add, sub, mul, div, sqrt } = quads;

/** Hyperparameters of AdamW, with PyTorch's defaults. */
export interface AdamWOptions {
  /** Learning rate γ, 0 or more. Default 1e-3. */
  lr?: number;
  /** Decay rates β1 and β2 of the two moments, each in [0, 1). Default 0.9 and 0.999. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment, 0 or more. Default 1e-8. */
  eps?: number;
  /** Decoupled weight decay λ, 0 or more. Default 0.01. */
  weightDecay?: number;
}

/** First and second moment, PyTorch's names. */
type Slot = "exp_avg" | "exp_avg_sq";

type Coefficient =
  /** γλ. */
  | "decay"
  | "beta1"
  /** 1 − β1. */
  | "oneMinusBeta1"
  | "beta2"
  /** 1 − β2. */
  | "oneMinusBeta2"
  /** γ/(1 − β1^k). */
  | "stepSize"
  /** 1/sqrt(1 − β2^k). */
  | "invSqrtBiasCorrection2"
  | "eps";

/**
 * Adam with decoupled weight decay.
 *
 * With gradient g, learning rate γ and step count k, for every element of a parameter θ:
 * θ ← θ·(1 − γλ); m ← β1·m + (1 − β1)·g; v ← β2·v + (1 − β2)·g²;
 * θ ← θ − γ/(1 − β1^k) · m / (sqrt(v)/sqrt(1 − β2^k) + eps).
 *
 * @see Loshchilov & Hutter 2017, arXiv:1711.05101
 */
export class AdamW extends ElementwiseOptimizer<Slot, Coefficient> {
  readonly rateCoefficients = ["decay", "stepSize"] as const;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({ lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, ...unknown }: AdamWOptions = {}) {
    super("AdamW", lr, { exp_avg: {}, exp_avg_sq: { nonNegative: true } });
    refuseUnknown(this.name, unknown);
    checkNonNegative(this.name, "eps", eps);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    this.betas = checkBetas(this.name, betas);
    this.eps = eps;
    this.weightDecay = weightDecay;
  }

  protected coefficientsOf({ learningRate, k }: StepRate): Record<Coefficient, number> {
    const [beta1, beta2] = this.betas;
    return {
      decay: learningRate * this.weightDecay,
      beta1,
      oneMinusBeta1: 1 - beta1,
      beta2,
      oneMinusBeta2: 1 - beta2,
      stepSize: learningRate / (1 - beta1 ** k),
      invSqrtBiasCorrection2: 1 / Math.sqrt(1 - beta2 ** k),
      eps: this.eps,
    };
  }

  /** As one after another, but in float32 throughout, as PyTorch computes it: a third of the time. */
  protected override updateAccompanied(
    updates: readonly ParameterUpdate<Slot>[],
    rate: StepRate,
    along: Accompaniment,
  ): void {
    const { gradientScale, average } = along;
    const kernel = average ? adamwWithAverage() : adamwAlone();
    if (!kernel) {
      super.updateAccompanied(updates, rate, along);
      return;
    }
    const plain = this.coefficientsOf(rate);
    for (const { name, parameter, gradient, state, factor } of updates) {
      const coefficients = this.scaled(plain, factor);
      const { exp_avg: first, exp_avg_sq: second } = state as Readonly<Record<Slot, Float32Array>>;
      const scalars = { ...coefficients, gradientScale, averageDecay: average?.decay ?? 0 };
      // Without an average, nothing reads the array in its place.
      kernel({ parameter, gradient, first, second, average: average?.values.get(name) ?? parameter }, scalars);
    }
  }

  /** In float64 between float32 loads and stores: rounding each step to float32 is slower. */
  protected update(
    parameter: Float32Array,
    gradient: Float32Array,
    { exp_avg: first, exp_avg_sq: second }: Readonly<Record<Slot, Float32Array>>,
    coefficients: Readonly<Record<Coefficient, number>>,
  ): void {
    const { decay, beta1, oneMinusBeta1, beta2, oneMinusBeta2, stepSize, invSqrtBiasCorrection2, eps } = coefficients;
    const oneMinusDecay = 1 - decay;
    const length = parameter.length;
    for (let i = 0; i < length; i++) {
      const g = gradient[i]!;
      const m = beta1 * first[i]! + oneMinusBeta1 * g;
      const v = beta2 * second[i]! + oneMinusBeta2 * g * g;
      first[i] = m;
      second[i] = v;
      parameter[i] = parameter[i]! * oneMinusDecay - (stepSize * m) / (Math.sqrt(v) * invSqrtBiasCorrection2 + eps);
    }
  }

  /** The weight decay is subtracted together with the step: a factor 1 − γλ would lose most of γλ to rounding. */
  addToGraph(
    { parameters, state }: GraphStep<Slot>,
    g: Value,
    c: Readonly<Record<Coefficient, Value>>,
  ): GraphStep<Slot> {
    const m = ops.add(ops.mul(state.exp_avg, c.beta1), ops.mul(g, c.oneMinusBeta1));
    const v = ops.add(ops.mul(state.exp_avg_sq, c.beta2), ops.mul(ops.mul(g, g), c.oneMinusBeta2));
    const root = ops.add(ops.mul(ops.sqrt(v), c.invSqrtBiasCorrection2), c.eps);
    const change = ops.add(ops.mul(parameters, c.decay), ops.div(ops.mul(m, c.stepSize), root));
    return { parameters: ops.sub(parameters, change), state: { exp_avg: m, exp_avg_sq: v } };
  }
}

const adamwKernel = (hasAverage: boolean) =>
  compileKernel(
    ["parameter", "gradient", "first", "second", "average"],
    [
      ...(["decay", "beta1", "oneMinusBeta1", "beta2", "oneMinusBeta2", "stepSize"] as const),
      ...(["invSqrtBiasCorrection2", "eps", "gradientScale", "averageDecay"] as const),
    ],
    ({ load, scalar, keep, store }) => {
      const g = keep(mul(load("gradient"), scalar("gradientScale")));
      const m = keep(add(mul(scalar("beta1"), load("first")), mul(scalar("oneMinusBeta1"), g)));
      const v = keep(add(mul(scalar("beta2"), load("second")), mul(mul(scalar("oneMinusBeta2"), g), g)));
      store("first", m);
      store("second", v);
      const root = add(mul(sqrt(v), scalar("invSqrtBiasCorrection2")), scalar("eps"));
      // Subtracted together: a factor 1 − γλ would lose most of γλ to rounding.
      const parameter = keep(load("parameter"));
      const change = add(mul(parameter, scalar("decay")), div(mul(scalar("stepSize"), m), root));
      const next = keep(sub(parameter, change));
      store("parameter", next);
      if (hasAverage) store("average", add(next, mul(scalar("averageDecay"), sub(load("average"), next))));
    },
  );

const adamwAlone = onceCompiled(() => adamwKernel(false));
const adamwWithAverage = onceCompiled(() => adamwKernel(true));
