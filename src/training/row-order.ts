// In which order images come, and which make a batch: epochs are permutations, batches hold latents of one size.

import { ConfigError } from "../errors.js";
import { type Generator, randperm } from "../tensor/random.js";
import type { EncodedRows } from "./encoded-dataset.js";

/** What a checkpoint holds of a `RowOrder`. */
export interface RowOrderState {
  /** What is left of the epoch. */
  order: number[];
  /** Drawn, and waiting for others of their size; none in checkpoints from before there were several sizes. */
  waiting?: number[];
  /** Epochs begun. */
  epochs?: number;
}

/**
 * An endless, seeded stream of batches of rows.
 *
 * Every epoch is a fresh permutation of all images, each as often as it repeats. Its rows go one after the other to the
 * bucket of their latents' size, and a bucket that has a batch together gives it. What a bucket is left with at the end of
 * an epoch, fewer than a batch, is not dropped and not filled up: it waits, and is the beginning of that bucket's first
 * batch in the next epoch. So each image comes exactly once per epoch and repeat, and a bucket smaller than a batch gives one
 * every few epochs.
 */
export class RowOrder {
  private order: number[] = [];
  private epochs = 0;
  private readonly waiting = new Map<string, number[]>();

  /** @throws {ConfigError} If a number of repeats is negative or not finite, or no image ever comes. */
  constructor(
    private readonly rows: Pick<EncodedRows, "size" | "latentSize" | "repeats">,
    private readonly batchSize: number,
    private readonly generator: Generator,
  ) {
    let total = 0;
    for (let i = 0; i < rows.size; i++) {
      const repeats = rows.repeats?.(i) ?? 1;
      if (!(repeats >= 0 && repeats < Number.POSITIVE_INFINITY)) {
        throw new ConfigError(`training data: repeats must be a finite number, 0 or more; image ${i} has ${repeats}.`);
      }
      total += repeats;
    }
    if (total === 0) throw new ConfigError("training data: there is no image that would ever be trained on.");
  }

  /** The rows of the next batch. */
  next(): number[] {
    for (;;) {
      while (this.order.length === 0) this.order = this.epoch();
      // From its end, where taking one costs nothing.
      const row = this.order.pop()!;
      const bucket = this.bucketOf(row);
      bucket.push(row);
      if (bucket.length === this.batchSize) return bucket.splice(0);
    }
  }

  state(): Required<RowOrderState> {
    return { order: this.order.toReversed(), waiting: [...this.waiting.values()].flat(), epochs: this.epochs };
  }

  restore({ order, waiting = [], epochs = 0 }: RowOrderState): void {
    this.order = order.toReversed();
    this.epochs = epochs;
    this.waiting.clear();
    for (const row of waiting) this.bucketOf(row).push(row);
  }

  private bucketOf(row: number): number[] {
    const { latentHeight, latentWidth } = this.rows.latentSize(row);
    const key = `${latentHeight}x${latentWidth}`;
    const known = this.waiting.get(key);
    if (known) return known;
    const bucket: number[] = [];
    this.waiting.set(key, bucket);
    return bucket;
  }

  /** All rows of an epoch, the first one last. */
  private epoch(): number[] {
    const entries: number[] = [];
    const epoch = this.epochs++;
    for (let i = 0; i < this.rows.size; i++) {
      const repeats = this.rows.repeats?.(i) ?? 1;
      const times = Math.floor((epoch + 1) * repeats) - Math.floor(epoch * repeats);
      for (let time = 0; time < times; time++) entries.push(i);
    }
    if (entries.length === 0) return entries;
    const { data } = randperm(entries.length, { generator: this.generator });
    return Array.from(data, (place) => entries[Number(place)]!).reverse();
  }
}
