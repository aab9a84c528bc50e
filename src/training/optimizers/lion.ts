// Lion: its options, its formula on arrays in main memory, and the same as graph nodes.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { ElementwiseOptimizer, type GraphStep } from "./elementwise-optimizer.js";
import { checkBetas, checkNonNegative, refuseUnknown } from "./hyperparameters.js";
import type { StepRate } from "./optimizer.js";

/** Hyperparameters of Lion, with the paper's defaults. */
export interface LionOptions {
  /** Learning rate γ, 0 or more; a third to a tenth of AdamW's. Default 1e-4. */
  lr?: number;
  /** β1 mixes the momentum with the gradient for the step, β2 for what is remembered; each in [0, 1). Default 0.9 and 0.99. */
  betas?: readonly [number, number];
  /** Decoupled weight decay λ, 0 or more; three to ten times AdamW's. Default 0. */
  weightDecay?: number;
}

/** The momentum. */
type Slot = "exp_avg";

type Coefficient =
  /** γλ. */
  | "decay"
  | "beta1"
  /** 1 − β1. */
  | "oneMinusBeta1"
  | "beta2"
  /** 1 − β2. */
  | "oneMinusBeta2"
  /** γ. */
  | "stepSize";

/**
 * Sign momentum: every element moves by the learning rate, one way or the other.
 *
 * With gradient g and learning rate γ, for every element of a parameter θ:
 * θ ← θ·(1 − γλ) − γ·sign(β1·m + (1 − β1)·g); m ← β2·m + (1 − β2)·g; sign(0) = 0.
 *
 * @see Chen et al. 2023, arXiv:2302.06675, algorithm 2
 */
export class Lion extends ElementwiseOptimizer<Slot, Coefficient> {
  readonly rateCoefficients = ["decay", "stepSize"] as const;
  readonly betas: readonly [number, number];
  readonly weightDecay: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({ lr = 1e-4, betas = [0.9, 0.99], weightDecay = 0, ...unknown }: LionOptions = {}) {
    super("Lion", lr, { exp_avg: {} });
    refuseUnknown(this.name, unknown);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    this.betas = checkBetas(this.name, betas);
    this.weightDecay = weightDecay;
  }

  protected coefficientsOf({ learningRate }: StepRate): Record<Coefficient, number> {
    const [beta1, beta2] = this.betas;
    return {
      decay: learningRate * this.weightDecay,
      beta1,
      oneMinusBeta1: 1 - beta1,
      beta2,
      oneMinusBeta2: 1 - beta2,
      stepSize: learningRate,
    };
  }

  protected update(
    parameter: Float32Array,
    gradient: Float32Array,
    { exp_avg: momentum }: Readonly<Record<Slot, Float32Array>>,
    { decay, beta1, oneMinusBeta1, beta2, oneMinusBeta2, stepSize }: Readonly<Record<Coefficient, number>>,
  ): void {
    const oneMinusDecay = 1 - decay;
    const length = parameter.length;
    for (let i = 0; i < length; i++) {
      const g = gradient[i]!;
      const m = momentum[i]!;
      parameter[i] = parameter[i]! * oneMinusDecay - stepSize * Math.sign(beta1 * m + oneMinusBeta1 * g);
      momentum[i] = beta2 * m + oneMinusBeta2 * g;
    }
  }

  addToGraph(
    { parameters, state }: GraphStep<Slot>,
    g: Value,
    c: Readonly<Record<Coefficient, Value>>,
  ): GraphStep<Slot> {
    const mix = (beta: Value, oneMinusBeta: Value) => ops.add(ops.mul(state.exp_avg, beta), ops.mul(g, oneMinusBeta));
    const change = ops.add(ops.mul(parameters, c.decay), ops.mul(sign(mix(c.beta1, c.oneMinusBeta1)), c.stepSize));
    return { parameters: ops.sub(parameters, change), state: { exp_avg: mix(c.beta2, c.oneMinusBeta2) } };
  }
}

/** −1, 0 or 1, by comparisons: ONNX Runtime's WebGPU provider has no Sign. */
function sign(x: Value): Value {
  const { graph } = x;
  const zero = graph.scalar(0);
  const negative = ops.where(ops.greater(zero, x), graph.scalar(-1), zero);
  return ops.where(ops.greater(x, zero), graph.scalar(1), negative);
}
