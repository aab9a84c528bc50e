// Averages of parameters whose length is chosen after the training: two power-function averages are kept, snapshots of them
// written now and then, and any other is a sum of snapshots.

import { ConfigError } from "../errors.js";
import { type Tensor, tensor } from "../tensor/tensor.js";

/** Widths of the averages that are kept: those of the paper. */
export const POST_HOC_WIDTHS = [0.05, 0.1] as const;

/** One average at one time. */
export interface AverageSnapshot {
  /** Updates that are in it, above 0. */
  step: number;
  /** σ_rel, its width relative to the time since the start. */
  width: number;
  values: ReadonlyMap<string, Tensor<"float32">>;
}

/**
 * γ of the power-function average whose relative width is σ: the real root above −1 of
 * γ³ + 7γ² + (16 − σ⁻²)γ + (12 − σ⁻²) = 0, from σ² = (γ + 1)/((γ + 2)²(γ + 3)).
 *
 * @param width - σ_rel, above 0 and below 0.288 (which is γ = 0, the mean of all).
 * @throws {ConfigError} If it is not.
 * @see Karras et al. 2024, arXiv:2312.02696, algorithm 2
 */
export function powerOfWidth(width: number): number {
  const widest = 1 / Math.sqrt(12);
  if (!(width > 0 && width < widest)) {
    throw new ConfigError(`powerOfWidth: width must lie between 0 and ${widest.toFixed(3)}; got ${width}.`);
  }
  // The width falls as γ rises from 0.
  const widthOf = (power: number) => Math.sqrt(power + 1) / ((power + 2) * Math.sqrt(power + 3));
  let [low, high] = [0, 1 / width];
  while (widthOf(high) > width) high *= 2;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (widthOf(middle) > width) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/**
 * Keeps power-function averages: average ← β·average + (1 − β)·parameter with β = (1 − 1/t)^(γ+1) at update t, the first being
 * 1, which weighs a parameter at time τ in proportion to τ^γ.
 *
 * @see Karras et al. 2024, arXiv:2312.02696, equation 5
 */
export class PowerFunctionAverages {
  private updates = 0;
  private readonly averages: readonly { width: number; power: number; values: Map<string, Float32Array> }[];

  /**
   * @param widths - σ_rel of each. Default {@link POST_HOC_WIDTHS}.
   * @throws {ConfigError} If there is none, or one is out of its range.
   */
  constructor(
    private readonly parameters: ReadonlyMap<string, Tensor<"float32">>,
    widths: readonly number[] = POST_HOC_WIDTHS,
  ) {
    if (widths.length === 0) throw new ConfigError("PowerFunctionAverages: widths must name one at least; got none.");
    this.averages = widths.map((width) => ({
      width,
      power: powerOfWidth(width),
      values: new Map([...parameters].map(([name, { data }]) => [name, data.slice()])),
    }));
  }

  /** Takes in the parameters as they are. */
  update(): void {
    this.updates++;
    for (const { power, values } of this.averages) {
      const decay = (1 - 1 / this.updates) ** (power + 1);
      for (const [name, { data }] of this.parameters) {
        const average = values.get(name)!;
        for (let i = 0; i < data.length; i++) average[i] = data[i]! + decay * (average[i]! - data[i]!);
      }
    }
  }

  /** The averages as they are: copies. To be kept, now and then, for {@link postHocAverage}. */
  snapshots(): AverageSnapshot[] {
    return this.averages.map(({ width, values }) => ({
      step: this.updates,
      width,
      values: new Map(
        [...values].map(([name, data]) => [name, tensor(data.slice(), this.parameters.get(name)!.shape)]),
      ),
    }));
  }

  /**
   * Goes on from snapshots, one for each width.
   *
   * @throws {ConfigError} If one is missing, or they are of different steps.
   */
  restore(snapshots: readonly AverageSnapshot[]): void {
    const chosen = this.averages.map(({ width }) => snapshots.find((each) => each.width === width));
    const steps = new Set(chosen.map((each) => each?.step));
    if (steps.size !== 1 || steps.has(undefined)) {
      throw new ConfigError("PowerFunctionAverages.restore: needs one snapshot for each width, all of one step.");
    }
    for (const [i, { values }] of this.averages.entries()) {
      for (const [name, value] of values) value.set(chosen[i]!.values.get(name)!.data);
    }
    this.updates = chosen[0]!.step;
  }
}

/** What a snapshot is of. */
export type Profile = Pick<AverageSnapshot, "step" | "width">;

/**
 * The sum of snapshots that is nearest to another average: least squares between their weights over time.
 *
 * @param target - Its step is at most the last snapshot's.
 * @returns A factor for each snapshot.
 * @throws {ConfigError} If there is no snapshot, two are alike, or the target is later than all.
 * @see Karras et al. 2024, arXiv:2312.02696, algorithm 3
 */
export function postHocWeights(snapshots: readonly Profile[], target: Profile): number[] {
  const latest = Math.max(...snapshots.map(({ step }) => step));
  if (snapshots.length === 0 || !(target.step > 0 && target.step <= latest)) {
    throw new ConfigError(
      `postHocWeights: the target's step must lie between 1 and the last snapshot's; got ${target.step} and ` +
        `${snapshots.length === 0 ? "no snapshot" : latest}.`,
    );
  }
  const of = (profile: Profile) => ({ step: profile.step, power: powerOfWidth(profile.width) });
  const known = snapshots.map(of);
  const wanted = of(target);
  const matrix = known.map((a) => [...known.map((b) => overlap(a, b)), overlap(a, wanted)]);
  return solved(matrix);
}

/**
 * An average of any width and time from snapshots.
 *
 * @param target - `width` σ_rel; `step` the last snapshot's by default.
 * @throws {ConfigError} As {@link postHocWeights}.
 */
export function postHocAverage(
  snapshots: readonly AverageSnapshot[],
  target: { width: number; step?: number },
): Map<string, Tensor<"float32">> {
  const step = target.step ?? Math.max(...snapshots.map((each) => each.step));
  const weights = postHocWeights(snapshots, { width: target.width, step });
  return new Map(
    [...snapshots[0]!.values].map(([name, { size, shape }]) => {
      const sum = new Float64Array(size);
      for (const [k, { values }] of snapshots.entries()) {
        const { data } = values.get(name)!;
        for (let i = 0; i < size; i++) sum[i]! += weights[k]! * data[i]!;
      }
      return [name, tensor(Float32Array.from(sum), shape)];
    }),
  );
}

/** ∫ of the product of two weightings over time: (γa + 1)(γb + 1)·(ta/tb)^e / ((γa + γb + 1)·max(ta, tb)), e = γb where ta < tb, else −γa. */
function overlap(a: { step: number; power: number }, b: { step: number; power: number }): number {
  const ratio = (a.step / b.step) ** (a.step < b.step ? b.power : -a.power);
  return ((a.power + 1) * (b.power + 1) * ratio) / ((a.power + b.power + 1) * Math.max(a.step, b.step));
}

/** Solves a symmetric system, the right side being the last column, by elimination with pivots. */
function solved(matrix: number[][]): number[] {
  const n = matrix.length;
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let row = column + 1; row < n; row++) {
      if (Math.abs(matrix[row]![column]!) > Math.abs(matrix[pivot]![column]!)) pivot = row;
    }
    if (Math.abs(matrix[pivot]![column]!) < 1e-300) {
      throw new ConfigError("postHocWeights: two snapshots are of the same width and step; give each once.");
    }
    [matrix[column], matrix[pivot]] = [matrix[pivot]!, matrix[column]!];
    for (let row = column + 1; row < n; row++) {
      const factor = matrix[row]![column]! / matrix[column]![column]!;
      for (let k = column; k <= n; k++) matrix[row]![k]! -= factor * matrix[column]![k]!;
    }
  }
  const solution = new Array<number>(n).fill(0);
  for (let row = n - 1; row >= 0; row--) {
    let rest = matrix[row]![n]!;
    for (let k = row + 1; k < n; k++) rest -= matrix[row]![k]! * solution[k]!;
    solution[row] = rest / matrix[row]![row]!;
  }
  return solution;
}
