import { describe, expect, it } from "vitest";
import { Generator } from "../tensor/random.js";
import { detectableDifference, excludesZero, type Observation, simultaneousIntervals, singleP } from "./statistics.js";
import { criticalValue, twoSidedNormalTail, twoSidedTail } from "./student-t.js";

describe("Student's t", () => {
  it("has the critical values of the tables", () => {
    expect(criticalValue(0.05, 1)).toBeCloseTo(12.7062, 3);
    expect(criticalValue(0.05, 4)).toBeCloseTo(2.77645, 4);
    expect(criticalValue(0.01, 10)).toBeCloseTo(3.16927, 4);
    expect(criticalValue(0.001, 4)).toBeCloseTo(8.6103, 3);
    expect(criticalValue(0.05, 2.5)).toBeGreaterThan(criticalValue(0.05, 3));
    expect(criticalValue(0.05, 2.5)).toBeLessThan(criticalValue(0.05, 2));
    expect(twoSidedTail(2.77645, 4)).toBeCloseTo(0.05, 5);
    expect(twoSidedTail(0, 7)).toBe(1);
    expect(twoSidedNormalTail(1.959964)).toBeCloseTo(0.05, 6);
    expect(twoSidedNormalTail(4)).toBeCloseTo(6.334e-5, 7);
  });
});

/** Differences of S seeds and N names: mean + a seed's own + a name's own + noise. */
function table(
  generator: Generator,
  { mean = 0, seeds = 5, names = 20, ofSeed = 1, ofName = 1, noise = 1, strata = ["a"] },
): Observation[] {
  const draw = (count: number, scale: number) => Array.from({ length: count }, () => scale * generator.normal());
  const [bySeed, byName] = [draw(seeds, ofSeed), draw(names, ofName)];
  return strata.flatMap((stratum) =>
    bySeed.flatMap((own, seed) =>
      byName.map((other, name) => ({
        ...{ seed, stratum, name: `n${name}` },
        value: mean + own + other + noise * generator.normal(),
      })),
    ),
  );
}

describe("an interval", () => {
  it("is the mean over strata of their means, and that of hand-made numbers", () => {
    const values = [1, 2, 3];
    const list = values.map((value, seed) => ({ seed, name: "", stratum: "a", value }));
    const [interval] = simultaneousIntervals([[...list, { seed: 0, name: "", stratum: "b", value: 10 }]]);
    expect(interval!.estimate).toBeCloseTo(6, 12);
    // Of three seeds: s / √3 = 1/√3, two degrees of freedom.
    const [plain] = simultaneousIntervals([list], { resamples: 20_000 });
    expect(plain!.estimate).toBeCloseTo(2, 12);
    expect(plain!.standardError).toBeCloseTo(1 / Math.sqrt(3), 2);
    expect(plain!.degreesOfFreedom).toBeCloseTo(2, 9);
    expect(plain!.single![1] - 2).toBeCloseTo(criticalValue(0.05, 2) * plain!.standardError!, 9);
    expect(plain!.corrected![1]).toBeCloseTo(plain!.single![1], 0);
    expect(singleP(plain!)).toBeCloseTo(twoSidedTail(2 * Math.sqrt(3), 2), 2);
  });

  it.each([
    ["seeds", { ofSeed: 1, ofName: 0, noise: 0.3 }],
    ["names", { ofSeed: 0, ofName: 1, noise: 0.3 }],
    ["both", { ofSeed: 0.5, ofName: 1, noise: 1, strata: ["a", "b"] }],
  ])("covers the true mean as often as it says where %s differ", (_, settings) => {
    const generator = new Generator(3);
    const trials = 120;
    let covered = 0;
    for (let trial = 0; trial < trials; trial++) {
      const list = table(generator, { mean: 1.5, seeds: 5, names: 12, ...settings });
      const single = simultaneousIntervals([list], { resamples: 200, seed: trial })[0]!.single!;
      if (single[0] <= 1.5 && 1.5 <= single[1]) covered++;
    }
    // 95 % with a standard deviation of 2 %; too wide is allowed a little, too narrow is not.
    expect(covered / trials).toBeGreaterThan(0.9);
    expect(covered / trials).toBeLessThan(0.999);
  });

  it("is none where a single seed was run, and zero differences claim nothing", () => {
    const one = ["x", "y", "z"].map((name, value) => ({ seed: 0, name, stratum: "a", value }));
    const [interval] = simultaneousIntervals([one]);
    expect(interval).toEqual({ estimate: 1, seeds: 1, names: 3 });
    expect(excludesZero(interval!.corrected)).toBe(false);
    const same = [0, 1].flatMap((seed) => ["x", "y"].map((name) => ({ seed, name, stratum: "a", value: 0 })));
    expect(excludesZero(simultaneousIntervals([same])[0]!.corrected)).toBe(false);
  });

  it("refuses what is not finite, and nothing at all", () => {
    expect(() => simultaneousIntervals([[]])).toThrow(/at least one; got none/);
    const value = Number.NaN;
    expect(() => simultaneousIntervals([[{ seed: 3, name: "x", stratum: "a", value }]])).toThrow(/NaN of "x", seed 3/);
  });
});

describe("the correction", () => {
  it("keeps false claims of twenty comparisons together to one family in twenty, where single intervals do not", () => {
    const generator = new Generator(5);
    const families = 25;
    let [single, corrected] = [0, 0];
    for (let family = 0; family < families; family++) {
      const lists = Array.from({ length: 20 }, () => table(generator, { seeds: 5, names: 8 }));
      const intervals = simultaneousIntervals(lists, { resamples: 200, seed: family });
      if (intervals.some((interval) => excludesZero(interval.single))) single++;
      if (intervals.some((interval) => excludesZero(interval.corrected))) corrected++;
    }
    expect(single / families).toBeGreaterThan(0.3);
    expect(corrected / families).toBeLessThan(0.17);
  });

  it("costs nothing for comparisons that are one and the same, and still finds what is there", () => {
    const generator = new Generator(7);
    const list = table(generator, { mean: 5, ofSeed: 0.5 });
    const [first] = simultaneousIntervals(Array.from({ length: 20 }, () => list));
    expect(first!.corrected![0] / first!.single![0]).toBeCloseTo(1, 1);
    const many = [list, ...Array.from({ length: 19 }, () => table(generator, {}))];
    const [found] = simultaneousIntervals(many);
    expect(found!.corrected![1] - found!.corrected![0]).toBeGreaterThan(1.2 * (found!.single![1] - found!.single![0]));
    expect(excludesZero(found!.corrected)).toBe(true);
  });
});

describe("the difference that a study finds", () => {
  it("is found four times in five", () => {
    const generator = new Generator(5);
    const sizes: number[] = [];
    for (let i = 0; i < 40; i++) sizes.push(detectableDifference(simultaneousIntervals([table(generator, {})])[0]!)!);
    const mean = sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
    let found = 0;
    for (let i = 0; i < 100; i++) {
      const [interval] = simultaneousIntervals([table(generator, { mean })], { resamples: 300 });
      if (excludesZero(interval!.corrected) && interval!.estimate > 0) found++;
    }
    expect(found).toBeGreaterThan(65);
    expect(found).toBeLessThan(95);
  });

  it("shrinks with more of what it varies by", () => {
    const [interval] = simultaneousIntervals([table(new Generator(1), { ofSeed: 1, ofName: 0, noise: 0.01 })]);
    expect(interval!.seedShare).toBeGreaterThan(0.95);
    const now = detectableDifference(interval!)!;
    expect(detectableDifference(interval!, { seeds: 4 })! / now).toBeCloseTo(0.5, 1);
    expect(detectableDifference(interval!, { names: 4 })! / now).toBeCloseTo(1, 1);
    expect(detectableDifference({ estimate: 1, seeds: 1, names: 3 })).toBeUndefined();
  });
});
