// An exponential moving average of parameters: what a short training is sampled from.

import { type Tensor, tensor } from "../tensor/tensor.js";

/**
 * Keeps average ← d·average + (1 − d)·parameter with d = min(decay, (1 + k)/(10 + k)) at update k, so that the first
 * steps do not weigh on the result.
 */
export class ParameterAverage {
  readonly values: Map<string, Tensor<"float32">>;

  constructor(
    private readonly parameters: ReadonlyMap<string, Tensor<"float32">>,
    private readonly decay: number,
  ) {
    this.values = new Map([...parameters].map(([name, { data, shape }]) => [name, tensor(data.slice(), shape)]));
  }

  /** Takes in the parameters after update number `step`, the first being 0. */
  update(step: number): void {
    const keep = Math.min(this.decay, (1 + step) / (10 + step));
    for (const [name, { data }] of this.parameters) {
      const average = this.values.get(name)!.data;
      for (let i = 0; i < average.length; i++) average[i] = data[i]! + keep * (average[i]! - data[i]!);
    }
  }
}
