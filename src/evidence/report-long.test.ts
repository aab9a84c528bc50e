import { expect, it } from "vitest";
import { type RunRecord, type RunSpec, runSpec } from "./records.js";
import { compareLong, kendall, longSection } from "./report-long.js";

it("has Kendall's agreement of two orders", () => {
  const order = [1, 2, 3, 4];
  expect(kendall(order.map((value) => [value, 10 * value]))).toBe(1);
  expect(kendall(order.map((value) => [value, -value]))).toBe(-1);
  // One of six pairs is turned around.
  expect(kendall([1, 2, 4, 3].map((value, i) => [i, value]))).toBeCloseTo(4 / 6, 12);
});

const settings = { model: "", modelHash: "a", batchSize: 1, drawingSteps: 1 };
const task = { kind: "style", style: "twemoji" } as const;
const RATES: Record<string, number> = { lora: 4, fera: 2 };

/** Both at their tuned rates for few steps, and at both of the rates for many. */
const specs: RunSpec[] = [0, 1, 2].flatMap((seed) =>
  Object.keys(RATES).flatMap((method) => {
    const specOf = (steps: number, learningRate: number) =>
      runSpec({ method, task, seed, steps, learningRate, measures: "error", settings });
    return [specOf(5, RATES[method]!), specOf(20, 2), specOf(20, 4)];
  }),
);

/** FeRA has half of LoRA's error at tuned rates, and one percent less at one rate. */
function recordOf(spec: RunSpec): RunRecord {
  const names = ["cat", "dog", "owl"].map((name, i) => {
    const error = ((spec.learningRate / 4) * (1 + (i + spec.seed) / 100)) / spec.steps;
    return { name, error: spec.method === "fera" ? error * (0.99 + i * 1e-5) : error };
  });
  const heldOut = { error: names[0]!.error, byTimestep: [], byBand: {}, names };
  const rest = { parameters: 1, trainImages: 1, loss: undefined, secondsPerStep: 1, fileBytes: 1, machine: {} };
  return { spec, heldOut, ...rest, seconds: 1, finishedAt: "2026-01-01" };
}

it("tells of seeds whose runs of both lengths are all there, and of each rate by itself", () => {
  const records = new Map(specs.slice(0, -1).map((spec) => [spec.id, recordOf(spec)]));
  const comparisons = compareLong(specs, records);
  const text = longSection(specs, records, comparisons, " (provisional)").join("\n");
  expect(text).toContain("3 seeds. Kendall's τ of the two orders is 1.00");
  expect(text).toMatch(/\| FeRA as published \| 2 \| 0\.10\d+ \| 0\.025\d+ \|/);
  expect(comparisons.steps).toBe(20);
  expect(comparisons.rates.map(({ key }) => key)).toEqual([2, 4]);
  for (const { cells } of comparisons.rates) expect(cells[0]!.interval!.estimate).toBeCloseTo(-1, 1);
  expect(text).toContain("those of a quarter of the steps (provisional)");
  expect(text).toContain("**20 steps at 4**");
});

it("leaves out the order where a method's tuned rate is not there, and all where nothing is", () => {
  const first = specs.filter(
    ({ method, steps, learningRate }) => method !== "fera" || steps === 5 || learningRate === 4,
  );
  const records = new Map(first.map((spec) => [spec.id, recordOf(spec)]));
  expect(longSection(specs, records, compareLong(specs, records), "")).toEqual([]);
  expect(compareLong(specs, records).rates).toHaveLength(1);
  expect(longSection(specs, new Map(), compareLong(specs, new Map()), "")).toEqual([]);
  expect(longSection([], new Map(), compareLong([], new Map()), "")).toEqual([]);
});
