// Muon: its options, and its formula on arrays in main memory. It has no graph form: every matrix is orthogonalized by itself.

import { ConfigError, quoted } from "../../errors.js";
import { sizeOf } from "../../tensor/tensor.js";
import { updateByAdamW } from "./adamw-update.js";
import {
  checkBetas,
  checkCount,
  checkNonNegative,
  checkPositive,
  checkRate,
  checkSwitch,
  refuseUnknown,
} from "./hyperparameters.js";
import { orthogonalized } from "./newton-schulz.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "./optimizer.js";

/** How a matrix's step depends on its size. A rows, B columns. */
export const MUON_RATES = ["original", "match_rms_adamw", "spectral_unclamped"] as const;

export type MuonRate = (typeof MUON_RATES)[number];

/** Hyperparameters of Muon, with torch's defaults. */
export interface MuonOptions {
  /** Learning rate γ, 0 or more. Default 1e-3. */
  lr?: number;
  /** Decoupled weight decay λ, 0 or more. Default 0.1. */
  weightDecay?: number;
  /** Decay rate µ of the momentum, in [0, 1). Default 0.95. */
  momentum?: number;
  /** Default true. */
  nesterov?: boolean;
  /** Of the quintic iteration. Default 3.4445, −4.775 and 2.0315. */
  nsCoefficients?: readonly [number, number, number];
  /** Iterations, below 100. Default 5. */
  nsSteps?: number;
  /** The least norm that a matrix is divided by, above 0. Default 1e-7. */
  eps?: number;
  /**
   * Factor on γ: "original" sqrt(max(1, A/B)); "match_rms_adamw" 0.2·sqrt(max(A, B)), which takes AdamW's learning rates;
   * "spectral_unclamped" sqrt(A/B). Default "original".
   */
  adjustLr?: MuonRate;
  /** AdamW for what is no matrix; `lr` is Muon's, betas 0.9 and 0.999, eps 1e-8 by default. */
  adamw?: { lr?: number; betas?: readonly [number, number]; eps?: number };
}

/** Momentum of matrices; AdamW's moments of everything else. */
type Slot = "momentum_buffer" | "exp_avg" | "exp_avg_sq";

/**
 * Orthogonalized momentum for matrices, AdamW for biases, norms and convolutions.
 *
 * With gradient G of a matrix: M ← µ·M + (1 − µ)·G; U = µ·M + (1 − µ)·G with Nesterov's momentum, else M;
 * θ ← θ·(1 − γλ) − γ·f(A, B)·`orthogonalized`(U).
 * Takes 10·A·B·min(A, B) multiplications and more a step, on one core: made for adapters, not for whole models.
 *
 * @see Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks; torch 2.15
 */
export class Muon extends Optimizer<Slot> {
  override readonly needsShapes = true;
  readonly weightDecay: number;
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly nsCoefficients: readonly [number, number, number];
  readonly nsSteps: number;
  readonly eps: number;
  readonly adjustLr: MuonRate;
  readonly adamw: { readonly lr: number; readonly betas: readonly [number, number]; readonly eps: number };

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({
    lr = 1e-3,
    weightDecay = 0.1,
    momentum = 0.95,
    nesterov = true,
    nsCoefficients = [3.4445, -4.775, 2.0315],
    nsSteps = 5,
    eps = 1e-7,
    adjustLr = "original",
    adamw = {},
    ...unknown
  }: MuonOptions = {}) {
    const isMatrix = (shape: readonly number[]) => shape.length === 2;
    const moment = { size: (shape: readonly number[]) => (isMatrix(shape) ? 0 : sizeOf(shape)) };
    super("Muon", lr, {
      momentum_buffer: { size: (shape) => (isMatrix(shape) ? sizeOf(shape) : 0) },
      exp_avg: moment,
      exp_avg_sq: { ...moment, nonNegative: true },
    });
    refuseUnknown(this.name, unknown);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    checkRate(this.name, "momentum", momentum);
    checkSwitch(this.name, "nesterov", nesterov);
    checkCount(this.name, "nsSteps", nsSteps, 1);
    if (nsSteps >= 100) throw new ConfigError(`${this.name}: nsSteps must be below 100; got ${nsSteps}.`);
    checkPositive(this.name, "eps", eps);
    if (nsCoefficients.length !== 3 || !nsCoefficients.every(Number.isFinite)) {
      throw new ConfigError(
        `${this.name}: nsCoefficients must be three numbers; got ${JSON.stringify(nsCoefficients)}.`,
      );
    }
    if (!MUON_RATES.includes(adjustLr)) {
      throw new ConfigError(`${this.name}: adjustLr must be one of ${MUON_RATES.join(", ")}; got ${quoted(adjustLr)}.`);
    }
    const { lr: adamwLr = lr, betas = [0.9, 0.999], eps: adamwEps = 1e-8, ...others } = adamw;
    refuseUnknown(`${this.name}: adamw`, others);
    checkNonNegative(this.name, "adamw.lr", adamwLr);
    checkNonNegative(this.name, "adamw.eps", adamwEps);
    this.weightDecay = weightDecay;
    this.momentum = momentum;
    this.nesterov = nesterov;
    this.nsCoefficients = [nsCoefficients[0]!, nsCoefficients[1]!, nsCoefficients[2]!];
    this.nsSteps = nsSteps;
    this.eps = eps;
    this.adjustLr = adjustLr;
    this.adamw = { lr: adamwLr, betas: checkBetas(`${this.name}: adamw`, betas), eps: adamwEps };
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], { learningRate, k }: StepRate): void {
    // A schedule moves both learning rates alike.
    const course = this.lr === 0 ? 0 : learningRate / this.lr;
    for (const update of updates) {
      if (update.shape.length === 2) this.updateMatrix(update, learningRate * update.factor);
      else this.updateOther(update, course * this.adamw.lr * update.factor, k);
    }
  }

  private updateMatrix({ parameter, gradient, shape, state }: ParameterUpdate<Slot>, rate: number): void {
    const { momentum, nesterov } = this;
    const buffer = state.momentum_buffer;
    const update = new Float64Array(gradient.length);
    for (let i = 0; i < gradient.length; i++) {
      const g = gradient[i]!;
      const m = momentum * buffer[i]! + (1 - momentum) * g;
      buffer[i] = m;
      update[i] = nesterov ? (1 - momentum) * g + momentum * m : m;
    }
    const [rows, columns] = shape as [number, number];
    const direction = orthogonalized(update, rows, columns, this);
    const step = rate * rateFactor(this.adjustLr, rows, columns);
    const oneMinusDecay = 1 - rate * this.weightDecay;
    for (let i = 0; i < parameter.length; i++) parameter[i] = parameter[i]! * oneMinusDecay - step * direction[i]!;
  }

  private updateOther({ parameter, gradient, state }: ParameterUpdate<Slot>, rate: number, k: number): void {
    const { betas, eps } = this.adamw;
    const moments = { first: state.exp_avg as Float32Array, second: state.exp_avg_sq as Float32Array };
    updateByAdamW(parameter, gradient, moments, { betas, eps, weightDecay: this.weightDecay, learningRate: rate, k });
  }
}

/** What γ is multiplied with for a matrix. */
export function rateFactor(kind: MuonRate, rows: number, columns: number): number {
  if (kind === "match_rms_adamw") return 0.2 * Math.sqrt(Math.max(rows, columns));
  const ratio = rows / columns;
  return Math.sqrt(kind === "original" ? Math.max(1, ratio) : ratio);
}
