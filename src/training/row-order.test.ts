import { describe, expect, it } from "vitest";
import { ConfigError } from "../errors.js";
import { Generator, randperm } from "../tensor/random.js";
import { RowOrder } from "./row-order.js";

/** Three buckets: of 9, 4 and 1 images. */
const WIDTHS = [8, 8, 6, 8, 8, 6, 8, 8, 4, 8, 6, 8, 6, 8];
const rows = {
  size: WIDTHS.length,
  latentSize: (index: number) => ({ latentHeight: 8, latentWidth: WIDTHS[index]! }),
};
const BATCH = 3;
const take = (order: RowOrder, count: number): number[][] => Array.from({ length: count }, () => order.next());
const counts = (taken: readonly number[]): number[] => WIDTHS.map((_, i) => taken.filter((row) => row === i).length);

describe("RowOrder", () => {
  it("gives batches of one bucket, each image exactly once an epoch", () => {
    const order = new RowOrder(rows, BATCH, new Generator(3));
    // After three epochs every bucket has come out even: 27, 12 and 3 images.
    const batches = take(order, (3 * rows.size) / BATCH);
    for (const batch of batches) expect(new Set(batch.map((row) => WIDTHS[row])).size).toBe(1);
    expect(counts(batches.flat())).toEqual(WIDTHS.map(() => 3));
    expect(order.state().waiting).toEqual([]);
    // The bucket of one image has filled its only batch with it, once in each epoch.
    expect(batches.filter((batch) => batch.includes(8))).toEqual([[8, 8, 8]]);
  });

  it("keeps the remainder of a bucket for the next epoch: nothing is dropped, nothing comes early", () => {
    const order = new RowOrder(rows, BATCH, new Generator(3));
    const first: number[] = [];
    while (order.state().epochs < 2) first.push(...order.next());
    // The batch that began the second epoch may hold one row more of it.
    const { waiting, order: left } = order.state();
    expect(counts([...first, ...waiting, ...left])).toEqual(WIDTHS.map(() => 2));
  });

  it("shuffles by seed, anew in each epoch", () => {
    const stream = (seed: number) => take(new RowOrder(rows, BATCH, new Generator(seed)), 28);
    expect(stream(1)).toEqual(stream(1));
    expect(stream(1)).not.toEqual(stream(2));
    const all = stream(1);
    expect(all.slice(0, 14)).not.toEqual(all.slice(14));
  });

  it("goes on from its state as if never interrupted, in the middle of an epoch", () => {
    for (let cut = 0; cut < 12; cut++) {
      const generator = new Generator(5);
      const order = new RowOrder(rows, BATCH, generator);
      take(order, cut);
      const [state, random] = [order.state(), generator.getState()];
      const expected = take(order, 12);
      const other = new Generator(0);
      other.setState(random);
      const resumed = new RowOrder(rows, BATCH, other);
      resumed.restore(JSON.parse(JSON.stringify(state)));
      expect(take(resumed, 12)).toEqual(expected);
    }
  });

  it("of one bucket is permutations one after the other, cut into batches", () => {
    const generator = new Generator(4);
    const permuted = [0, 1, 2].flatMap(() => Array.from(randperm(5, { generator }).data, Number));
    const one = { size: 5, latentSize: () => ({ latentHeight: 8, latentWidth: 8 }) };
    expect(take(new RowOrder(one, 3, new Generator(4)), 5).flat()).toEqual(permuted);
  });

  it("brings an image as often as it repeats, fractions over several epochs", () => {
    const repeats = (index: number) => [2, 1, 0.5, 0][index]!;
    const order = new RowOrder(
      { size: 4, latentSize: () => ({ latentHeight: 1, latentWidth: 1 }), repeats },
      7,
      new Generator(0),
    );
    const taken = order.next();
    expect([0, 1, 2, 3].map((i) => taken.filter((row) => row === i).length)).toEqual([4, 2, 1, 0]);
  });

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])("refuses %s repeats", (repeats) => {
    expect(() => new RowOrder({ ...rows, repeats: () => repeats }, 1, new Generator(0))).toThrow(
      /repeats must be a finite number, 0 or more; image 0 has/,
    );
  });

  it("refuses images of which none ever comes", () => {
    expect(() => new RowOrder({ ...rows, repeats: () => 0 }, 1, new Generator(0))).toThrow(ConfigError);
  });
});
