// Losses and gradients of a batch that several ranks have computed parts of: packed into one buffer, summed by one call.

import type { RankGroup } from "../distributed/index.js";
import type { LossesAndGradients, SampleLosses } from "./trainable.js";

/** Means over ranks, and whether any of them was asked to stop. */
export class RankMean {
  /** Whether a rank wanted to stop at the last mean: the same answer on all. */
  isStopAsked = false;
  private buffer = new Float32Array();

  /**
   * @param batches - Of which each rank computes a part in a step, one after the other.
   * @param wantsToStop - Whether this rank does.
   */
  constructor(
    private readonly ranks: RankGroup,
    private readonly batches: number,
    private readonly wantsToStop: () => boolean,
  ) {}

  /**
   * The mean over all ranks, whose parts have one size; samples in the order of whole batches. The same bits on every rank.
   *
   * The gradients are not sent layer by layer while the backward pass still computes: adapters are small beside their model,
   * and their sum takes thousandths of a step (docs/distributed.md).
   *
   * @param own - This rank's; its gradients are overwritten.
   */
  async of(own: LossesAndGradients): Promise<LossesAndGradients> {
    const { ranks } = this;
    const names = Object.keys(own.losses);
    const samples = own.sampleLosses?.losses.length ?? 0;
    const gradients = [...own.gradients.values()];
    const values = gradients.reduce((sum, { length }) => sum + length, 0);
    const all = samples * ranks.size;
    const buffer = this.withLength(values + names.length + 2 * all + 1);
    let at = 0;
    for (const gradient of gradients) {
      buffer.set(gradient, at);
      at += gradient.length;
    }
    for (const name of names) buffer[at++] = own.losses[name]!;
    const losses = buffer.subarray(at, at + all);
    const timesteps = buffer.subarray(at + all, at + 2 * all);
    // Others' places are 0: the sum of all ranks has everyone's.
    losses.fill(0);
    timesteps.fill(0);
    own.sampleLosses?.losses.forEach((loss, i) => {
      const place = this.placeOf(i, samples);
      losses[place] = loss;
      timesteps[place] = own.sampleLosses!.timesteps[i]!;
    });
    buffer[buffer.length - 1] = this.wantsToStop() ? 1 : 0;
    await ranks.sum(buffer);
    this.isStopAsked = buffer.at(-1)! > 0;
    at = 0;
    for (const gradient of gradients) {
      for (let i = 0; i < gradient.length; i++) gradient[i] = buffer[at + i]! / ranks.size;
      at += gradient.length;
    }
    const means = names.map((name, i) => [name, buffer[at + i]! / ranks.size] as const);
    const sampleLosses: SampleLosses | undefined = own.sampleLosses && {
      losses: Array.from(losses),
      timesteps: Array.from(timesteps),
    };
    return {
      losses: Object.fromEntries(means) as unknown as LossesAndGradients["losses"],
      gradients: own.gradients,
      ...(sampleLosses && { sampleLosses }),
    };
  }

  /** Where a rank's i-th sample of a step is among all: batches one after the other, in each the ranks. */
  private placeOf(i: number, samples: number): number {
    const { rank, size } = this.ranks;
    const part = samples / this.batches;
    const batch = Math.floor(i / part);
    return (batch * size + rank) * part + (i % part);
  }

  /** One that is kept; a length that changes (frozen tensors) takes another. */
  private withLength(length: number): Float32Array {
    if (this.buffer.length !== length) this.buffer = new Float32Array(length);
    return this.buffer;
  }
}
