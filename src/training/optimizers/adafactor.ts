// Adafactor: its options, and its formula on arrays in main memory. It has no graph form: rows and columns of every
// parameter are averaged apart from all others.

import { ConfigError } from "../../errors.js";
import { sizeOf } from "../../tensor/tensor.js";
import { checkNonNegative, checkPositive, checkRate, checkSwitch, refuseUnknown } from "./hyperparameters.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "./optimizer.js";

/** Hyperparameters of Adafactor, with the defaults of transformers' implementation. */
export interface AdafactorOptions {
  /** Learning rate γ, 0 or more. Without one, steps are relative: min(1e-2, 1/sqrt(k)), and γ is a factor of 1 on them. */
  lr?: number;
  /** Steps min(1e-2, 1/sqrt(k)) times γ. Default: where there is no `lr`. */
  relativeStep?: boolean;
  /** Relative steps rise with 1e-6·k at first. Default false. */
  warmupInit?: boolean;
  /** Multiplies the step by the parameter's root mean square, or `eps[1]` where that is more. Default true. */
  scaleParameter?: boolean;
  /** Added to g², and the least scale of a parameter, each 0 or more. Default 1e-30 and 1e-3. */
  eps?: readonly [number, number];
  /** The root mean square of an update is clipped to this, above 0. Default 1. */
  clipThreshold?: number;
  /** ρ: the second moment decays with 1 − k^ρ. Default −0.8. */
  decayRate?: number;
  /** β1 of a first moment, in [0, 1); none is kept by default. */
  beta1?: number;
  /** Decoupled weight decay λ, 0 or more. Default 0. */
  weightDecay?: number;
}

/** First moment (with β1); second moment of vectors; of matrices its means over columns, and over rows. */
type Slot = "exp_avg" | "exp_avg_sq" | "exp_avg_sq_row" | "exp_avg_sq_col";

/**
 * Adam without a first moment, the second one of a matrix kept as row and column means: hardly any memory.
 *
 * With gradient g `[…, R, C]`, β = 1 − k^ρ: row ← β·row + (1 − β)·mean over C of (g² + eps1); col likewise over R;
 * u = g / sqrt(row·col/mean(row)); u ← u / max(1, rms(u)/clip); α = γ · max(eps2, rms(θ)) where scaled;
 * θ ← θ·(1 − λα) − α·u. Vectors keep the whole second moment. Convolutions are averaged over their last two axes.
 *
 * @see Shazeer & Stern 2018, arXiv:1804.04235; transformers 5.24
 */
export class Adafactor extends Optimizer<Slot> {
  override readonly needsShapes = true;
  readonly relativeStep: boolean;
  readonly warmupInit: boolean;
  readonly scaleParameter: boolean;
  readonly eps: readonly [number, number];
  readonly clipThreshold: number;
  readonly decayRate: number;
  readonly beta1: number | undefined;
  readonly weightDecay: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({
    lr,
    relativeStep = lr === undefined,
    warmupInit = false,
    scaleParameter = true,
    eps = [1e-30, 1e-3],
    clipThreshold = 1,
    decayRate = -0.8,
    beta1,
    weightDecay = 0,
    ...unknown
  }: AdafactorOptions = {}) {
    super("Adafactor", lr ?? 1, slotsOf(beta1 !== undefined));
    refuseUnknown(this.name, unknown);
    for (const [name, value] of Object.entries({ relativeStep, warmupInit, scaleParameter })) {
      checkSwitch(this.name, name, value);
    }
    if (lr === undefined && !relativeStep) {
      throw new ConfigError(`${this.name}: without relativeStep it needs a learning rate; give lr.`);
    }
    if (warmupInit && !relativeStep) throw new ConfigError(`${this.name}: warmupInit needs relativeStep.`);
    if (!Array.isArray(eps) || eps.length !== 2) {
      throw new ConfigError(`${this.name}: eps must be two numbers, 0 or more; got ${JSON.stringify(eps)}.`);
    }
    checkNonNegative(this.name, "the first of eps", eps[0]);
    checkNonNegative(this.name, "the second of eps", eps[1]);
    checkPositive(this.name, "clipThreshold", clipThreshold);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    if (!(decayRate < 0)) throw new ConfigError(`${this.name}: decayRate must be below 0; got ${decayRate}.`);
    if (beta1 !== undefined) checkRate(this.name, "beta1", beta1);
    this.relativeStep = relativeStep;
    this.warmupInit = warmupInit;
    this.scaleParameter = scaleParameter;
    this.eps = [eps[0]!, eps[1]!];
    this.clipThreshold = clipThreshold;
    this.decayRate = decayRate;
    this.beta1 = beta1;
    this.weightDecay = weightDecay;
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], { learningRate, k }: StepRate): void {
    const longest = this.warmupInit ? 1e-6 * k : 1e-2;
    const rate = learningRate * (this.relativeStep ? Math.min(longest, 1 / Math.sqrt(k)) : 1);
    const decay = 1 - k ** this.decayRate;
    for (const each of updates) this.update(each, rate * each.factor, decay);
  }

  private update({ parameter, gradient, shape, state }: ParameterUpdate<Slot>, rate: number, decay: number): void {
    const scale = this.scaleParameter ? Math.max(this.eps[1], rootMeanSquare(parameter)) : 1;
    const step = rate * scale;
    const update =
      shape.length < 2
        ? this.wholeDirection(gradient, state.exp_avg_sq as Float32Array, decay)
        : this.factoredDirection(gradient, shape, state as Readonly<Record<Slot, Float32Array>>, decay);
    const clip = Math.max(1, rootMeanSquare(update) / this.clipThreshold);
    const { beta1 } = this;
    const first = state.exp_avg;
    const oneMinusDecay = 1 - this.weightDecay * step;
    for (let i = 0; i < parameter.length; i++) {
      let change = (update[i]! / clip) * step;
      if (beta1 !== undefined) {
        change = beta1 * first[i]! + (1 - beta1) * change;
        first[i] = change;
      }
      parameter[i] = parameter[i]! * oneMinusDecay - change;
    }
  }

  private wholeDirection(gradient: Float32Array, second: Float32Array, decay: number): Float64Array {
    const direction = new Float64Array(gradient.length);
    for (let i = 0; i < gradient.length; i++) {
      const g = gradient[i]!;
      const v = decay * second[i]! + (1 - decay) * (g * g + this.eps[0]);
      second[i] = v;
      direction[i] = g / Math.sqrt(v);
    }
    return direction;
  }

  /** g / sqrt(row·col/mean(row)), matrix by matrix. */
  private factoredDirection(
    gradient: Float32Array,
    shape: readonly number[],
    { exp_avg_sq_row: row, exp_avg_sq_col: column }: Readonly<Record<Slot, Float32Array>>,
    decay: number,
  ): Float64Array {
    const [rows, columns] = shape.slice(-2) as [number, number];
    const direction = new Float64Array(gradient.length);
    const rowSums = new Float64Array(rows);
    const columnSums = new Float64Array(columns);
    for (let at = 0, matrix = 0; at < gradient.length; at += rows * columns, matrix++) {
      rowSums.fill(0);
      columnSums.fill(0);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const square = gradient[at + r * columns + c]! ** 2 + this.eps[0];
          rowSums[r]! += square;
          columnSums[c]! += square;
        }
      }
      let mean = 0;
      for (let r = 0; r < rows; r++) {
        const index = matrix * rows + r;
        row[index] = decay * row[index]! + ((1 - decay) * rowSums[r]!) / columns;
        mean += row[index]! / rows;
        rowSums[r] = row[index]!;
      }
      for (let c = 0; c < columns; c++) {
        const index = matrix * columns + c;
        column[index] = decay * column[index]! + ((1 - decay) * columnSums[c]!) / rows;
        columnSums[c] = 1 / Math.sqrt(column[index]!);
      }
      for (let r = 0; r < rows; r++) {
        const factor = 1 / Math.sqrt(rowSums[r]! / mean);
        for (let c = 0; c < columns; c++) {
          const index = at + r * columns + c;
          direction[index] = gradient[index]! * factor * columnSums[c]!;
        }
      }
    }
    return direction;
  }
}

function slotsOf(hasFirstMoment: boolean) {
  const isMatrix = (shape: readonly number[]) => shape.length >= 2;
  const without = (shape: readonly number[], axis: number) => sizeOf(shape.filter((_, i) => i !== shape.length - axis));
  return {
    exp_avg: { size: (shape: readonly number[]) => (hasFirstMoment ? sizeOf(shape) : 0) },
    exp_avg_sq: { nonNegative: true, size: (shape: readonly number[]) => (isMatrix(shape) ? 0 : sizeOf(shape)) },
    exp_avg_sq_row: {
      nonNegative: true,
      size: (shape: readonly number[]) => (isMatrix(shape) ? without(shape, 1) : 0),
    },
    exp_avg_sq_col: {
      nonNegative: true,
      size: (shape: readonly number[]) => (isMatrix(shape) ? without(shape, 2) : 0),
    },
  };
}

function rootMeanSquare(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return values.length === 0 ? 0 : Math.sqrt(sum / values.length);
}
