import { expect, it } from "vitest";
import { type RunRecord, type RunSpec, runSpec } from "./records.js";
import { compareConfirmed, ratesTried, splitByRate } from "./report-confirm.js";

const settings = { model: "", modelHash: "a", batchSize: 1, drawingSteps: 1 };
const task = { kind: "style", style: "twemoji" } as const;
const specOf = (method: string, seed: number, learningRate: number, steps = 20): RunSpec =>
  runSpec({ method, task, seed, steps, learningRate, measures: "error", settings });
const SEEDS = [0, 1, 2];

/** The rate was looked for with one seed, and taken for all. */
const specs = [
  ...SEEDS.flatMap((seed) => [specOf("lora", seed, 2), specOf("fera-energies", seed, 2)]),
  ...[1, 2, 4].map((rate) => specOf("lora", 0, rate)),
  ...SEEDS.map((seed) => specOf("fera-energies", seed, 2, 18)),
];
const distinct = [...new Map(specs.map((spec) => [spec.id, spec])).values()];

/** FeRA has one percent less error in as many steps, half of that in the time. */
function recordOf(spec: RunSpec): RunRecord {
  const share = spec.method === "lora" ? 1 : spec.steps === 20 ? 0.99 : 0.995;
  const names = ["cat", "dog", "owl"].map((name, i) => ({
    name,
    error: (1 + (i + spec.seed) / 100) * (share + i * 1e-5) * (1 + Math.abs(spec.learningRate - 2)),
  }));
  const heldOut = { error: names[0]!.error, byTimestep: [], byBand: {}, names };
  const rest = { parameters: 1, trainImages: 1, loss: undefined, secondsPerStep: 1, fileBytes: 1, machine: {} };
  return { spec, heldOut, ...rest, seconds: 1, finishedAt: "2026-01-01" };
}
const records = new Map(distinct.map((spec) => [spec.id, recordOf(spec)]));

it("compares at the rate that was taken, and shows the baseline at all that were tried, over the same seeds", () => {
  const { rate, own, tried } = splitByRate(distinct);
  expect(rate).toBe(2);
  expect(own).toHaveLength(9);
  expect(tried.map(({ seed, learningRate }) => [seed, learningRate])).toEqual([
    ...[
      [0, 2],
      [0, 1],
      [0, 4],
    ],
  ]);
  const [steps, time] = compareConfirmed(own, records);
  expect(steps!.baseline).toHaveLength(3);
  expect(steps!.cells[0]!.interval!.estimate).toBeCloseTo(-1, 1);
  expect(time!.cells[0]!.interval!.estimate).toBeCloseTo(-0.5, 1);
  const [table] = ratesTried(tried, records);
  expect(table).toMatch(/LoRA of rank 24, 1 seed \| 1 \| 2 \| 4 \|/);
  expect(table).toMatch(/held-out error \| 2\.02\d* \| 1\.01\d* \| 3\.03\d* \|/);
});

it("has nothing to show of a rate that was not looked for, or of no runs", () => {
  const single = distinct.filter(({ learningRate }) => learningRate === 2);
  expect(ratesTried(splitByRate(single).tried, records)).toEqual([]);
  expect(splitByRate([])).toEqual({ rate: undefined, own: [], tried: [] });
  expect(compareConfirmed([], records)).toEqual([]);
});
