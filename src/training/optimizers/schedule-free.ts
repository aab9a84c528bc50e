// Schedule-free AdamW: its options, its formula on arrays in main memory, and the same as graph nodes.

import { ConfigError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { Tensor } from "../../tensor/tensor.js";
import { ElementwiseOptimizer, type GraphStep } from "./elementwise-optimizer.js";
import { checkBetas, checkCount, checkNonNegative, refuseUnknown } from "./hyperparameters.js";
import type { StepRate } from "./optimizer.js";

/** Hyperparameters of schedule-free AdamW, with the defaults of its authors. */
export interface ScheduleFreeAdamWOptions {
  /** Learning rate γ, 0 or more; one to ten times AdamW's. Default 2.5e-3. */
  lr?: number;
  /** β1, above 0, interpolates between the average and the fast iterate; β2 in [0, 1) is AdamW's. Default 0.9 and 0.999. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment, 0 or more. Default 1e-8. */
  eps?: number;
  /** Decoupled weight decay λ at y, 0 or more. Default 0. */
  weightDecay?: number;
  /** Steps over which the learning rate rises linearly, the first step having 1/w of it. Default 0. */
  warmupSteps?: number;
  /** Power of the step in an average's weights. Default 0. */
  r?: number;
  /** Power of the largest learning rate so far in an average's weights. Default 2. */
  weightLrPower?: number;
}

/** The fast iterate, and the second moment. */
type Slot = "z" | "exp_avg_sq";

type Coefficient =
  /** γ of the step. */
  | "rate"
  /** γ·(1 − β1·(1 − c)). */
  | "stepSize"
  /** λ. */
  | "weightDecay"
  /** c, weight of this step in the average. */
  | "share"
  | "beta2"
  /** 1 − β2. */
  | "oneMinusBeta2"
  /** 1/(1 − β2^k). */
  | "invBiasCorrection2"
  | "eps";

/**
 * AdamW without a schedule: an average of the iterates takes the place of a falling learning rate.
 *
 * What is trained is y = (1 − β1)·z + β1·x; what is delivered is x, the average ({@link delivered}). With gradient g at y,
 * at step k, γ_k = γ·min(1, k/w), G = max of γ_1 … γ_k, weight w_k = k^r·G^p, c = w_k/Σw:
 * v ← β2·v + (1 − β2)·g²; d = g/(sqrt(v/(1 − β2^k)) + eps) + λ·y;
 * y ← (1 − c)·y + c·z − γ_k·(1 − β1·(1 − c))·d; z ← z − γ_k·d; x is never kept: x = y + (1 − 1/β1)·(z − y).
 *
 * @see Defazio et al. 2024, arXiv:2405.15682
 */
export class ScheduleFreeAdamW extends ElementwiseOptimizer<Slot, Coefficient> {
  readonly rateCoefficients = ["rate", "stepSize"] as const;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly warmupSteps: number;
  readonly r: number;
  readonly weightLrPower: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({
    lr = 2.5e-3,
    betas = [0.9, 0.999],
    eps = 1e-8,
    weightDecay = 0,
    warmupSteps = 0,
    r = 0,
    weightLrPower = 2,
    ...unknown
  }: ScheduleFreeAdamWOptions = {}) {
    const slots = { z: { start: "parameter" }, exp_avg_sq: { nonNegative: true } } as const;
    super("ScheduleFreeAdamW", lr, slots, { weight_sum: 0, lr_max: 0 });
    refuseUnknown(this.name, unknown);
    for (const [name, value] of Object.entries({ eps, weightDecay, r, weightLrPower })) {
      checkNonNegative(this.name, name, value);
    }
    checkCount(this.name, "warmupSteps", warmupSteps);
    this.betas = checkBetas(this.name, betas);
    if (this.betas[0] === 0) {
      throw new ConfigError(`${this.name}: the first of betas must be above 0: the average is found from it; got 0.`);
    }
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.warmupSteps = warmupSteps;
    this.r = r;
    this.weightLrPower = weightLrPower;
  }

  override get deliversAverage(): boolean {
    return true;
  }

  /** x, the average, where a parameter has been trained. */
  override delivered(parameters: ReadonlyMap<string, Tensor<"float32">>): ReadonlyMap<string, Tensor<"float32">> {
    const towards = 1 - 1 / this.betas[0];
    return new Map(
      [...parameters].map(([name, parameter]) => {
        const state = this.stateOfKnown(name, parameter);
        if (!state) return [name, parameter];
        const { data, shape } = parameter;
        const average = data.map((y, i) => y + towards * (state.z[i]! - y));
        return [name, new Tensor("float32", shape, average)];
      }),
    );
  }

  /** The largest rate so far, the sum of all weights, and this step's share of it. */
  private averaging({ learningRate, k }: StepRate) {
    const rate = learningRate * (k <= this.warmupSteps ? k / this.warmupSteps : 1);
    const largest = Math.max(rate, this.number("lr_max"));
    const weight = k ** this.r * largest ** this.weightLrPower;
    const sum = this.number("weight_sum") + weight;
    return { rate, largest, sum, share: sum === 0 ? 0 : weight / sum };
  }

  protected override advance(step: StepRate): void {
    const { largest, sum } = this.averaging(step);
    this.setNumber("lr_max", largest);
    this.setNumber("weight_sum", sum);
  }

  protected coefficientsOf(step: StepRate): Record<Coefficient, number> {
    const [beta1, beta2] = this.betas;
    const { rate, share } = this.averaging(step);
    return {
      rate,
      stepSize: rate * (1 - beta1 * (1 - share)),
      weightDecay: this.weightDecay,
      share,
      beta2,
      oneMinusBeta2: 1 - beta2,
      invBiasCorrection2: 1 / (1 - beta2 ** step.k),
      eps: this.eps,
    };
  }

  protected update(
    parameter: Float32Array,
    gradient: Float32Array,
    { z, exp_avg_sq: second }: Readonly<Record<Slot, Float32Array>>,
    coefficients: Readonly<Record<Coefficient, number>>,
  ): void {
    const { rate, stepSize, weightDecay, share, beta2, oneMinusBeta2, invBiasCorrection2, eps } = coefficients;
    const length = parameter.length;
    for (let i = 0; i < length; i++) {
      const g = gradient[i]!;
      const y = parameter[i]!;
      const fast = z[i]!;
      const v = beta2 * second[i]! + oneMinusBeta2 * g * g;
      second[i] = v;
      const direction = g / (Math.sqrt(v * invBiasCorrection2) + eps) + weightDecay * y;
      parameter[i] = y + share * (fast - y) - stepSize * direction;
      z[i] = fast - rate * direction;
    }
  }

  addToGraph(
    { parameters: y, state }: GraphStep<Slot>,
    g: Value,
    c: Readonly<Record<Coefficient, Value>>,
  ): GraphStep<Slot> {
    const v = ops.add(ops.mul(state.exp_avg_sq, c.beta2), ops.mul(ops.mul(g, g), c.oneMinusBeta2));
    const root = ops.add(ops.sqrt(ops.mul(v, c.invBiasCorrection2)), c.eps);
    const direction = ops.add(ops.div(g, root), ops.mul(y, c.weightDecay));
    const towards = ops.mul(ops.sub(state.z, y), c.share);
    const next = ops.add(y, ops.sub(towards, ops.mul(direction, c.stepSize)));
    return { parameters: next, state: { z: ops.sub(state.z, ops.mul(direction, c.rate)), exp_avg_sq: v } };
  }
}
