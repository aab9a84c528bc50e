// An exponential moving average of parameters: what a short training is sampled from. In main memory, and in a graph.

import type { StepAverage } from "../adapters/train-step-options.js";
import { ConfigError } from "../errors.js";
import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { DeviceResident } from "../runtime/index.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { takeIn } from "./optimizers/optimizer.js";

/** How an average's decay rises at first, with the names and defaults of diffusers' `EMAModel`. */
export interface AverageOptions {
  /** d = 1 − (1 + k/inverseGamma)^−power instead of (1 + k)/(10 + k). Default false. */
  warmup?: boolean;
  /** Above 0. Default 1. */
  inverseGamma?: number;
  /** Above 0: 2/3 where a million steps and more are done, 3/4 for fewer. Default 2/3. */
  power?: number;
}

/**
 * Keeps average ← d·average + (1 − d)·parameter with d = min(decay, (1 + k)/(10 + k)) at update k; the first, k = 0, takes
 * the parameters as they are. The first steps so do not weigh on the result.
 *
 * @see diffusers' `EMAModel`, whose numbers these are
 */
export class ParameterAverage implements StepAverage {
  /** Where the current values are, for updates that are done on a device. */
  readonly residence = new DeviceResident();
  /** Number of updates done; a step that is done elsewhere, and saved values that are restored, are counted here. */
  updates = 0;
  private readonly own: Map<string, Tensor<"float32">>;
  /** The decay of update k, before its limit. */
  private readonly rise: (k: number) => number;

  /**
   * Starts from the parameters as they are.
   *
   * @throws {ConfigError} If the decay is not in [0, 1).
   */
  constructor(
    private readonly parameters: ReadonlyMap<string, Tensor<"float32">>,
    private readonly decay: number,
    { warmup = false, inverseGamma = 1, power = 2 / 3 }: AverageOptions = {},
  ) {
    if (!(decay >= 0 && decay < 1)) {
      throw new ConfigError(`ParameterAverage: decay must lie in 0 … 1, 1 excluded; got ${decay}.`);
    }
    for (const [name, value] of Object.entries({ inverseGamma, power })) {
      if (!(value > 0)) throw new ConfigError(`ParameterAverage: ${name} must be above 0; got ${value}.`);
    }
    this.rise = warmup ? (k) => 1 - (1 + k / inverseGamma) ** -power : (k) => (1 + k) / (10 + k);
    this.own = new Map([...parameters].map(([name, { data, shape }]) => [name, tensor(data.slice(), shape)]));
  }

  /** The average by parameter; current when asked for. To be changed in place only. */
  get values(): ReadonlyMap<string, Tensor<"float32">> {
    this.residence.syncToHost();
    return this.own;
  }

  /** d of the next update. */
  get nextDecay(): number {
    return this.updates === 0 ? 0 : Math.min(this.decay, this.rise(this.updates));
  }

  /** Whether it is an average of these very tensors. */
  isOf(parameters: ReadonlyMap<string, Tensor<"float32">>): boolean {
    if (parameters.size !== this.parameters.size) return false;
    return [...parameters].every(([name, value]) => this.parameters.get(name) === value);
  }

  /** Takes in the parameters as they are. */
  update(): void {
    const { values, nextDecay } = this;
    for (const [name, { data }] of this.parameters) takeIn(values.get(name)!.data, data, nextDecay);
    this.updates++;
  }
}

/** Whether an average, where there is one, is of this library, so that a device can update it too. */
export const canBeOnDevice = (average: StepAverage | undefined): average is ParameterAverage | undefined =>
  average === undefined || average instanceof ParameterAverage;

/** One update as part of a graph: `parameters + decay·(average − parameters)`, packed states `[P]` and `[1]`. */
export function addAverage(average: Value, parameters: Value, decay: Value): Value {
  return ops.add(parameters, ops.mul(decay, ops.sub(average, parameters)));
}
