import { expect, it } from "vitest";
import type { Part } from "./parts.js";
import type { Plan } from "./plan.js";
import { type RunRecord, type RunSpec, runSpec } from "./records.js";
import { mainAtSameRate, sameRateSection } from "./report-same-rate.js";

const settings = { model: "", modelHash: "a", batchSize: 1, drawingSteps: 1 };
const STEPS = 5;
const SEEDS = [0, 1, 2];

const specsOf = (method: string, learningRate: number, measures: "all" | "error"): RunSpec[] =>
  SEEDS.map((seed) =>
    runSpec({
      ...{ method, task: { kind: "style", style: "twemoji" }, seed, steps: STEPS, learningRate, measures, settings },
      adapter: { type: method.split("-")[0]!, config: {} },
    }),
  );

/** LoRA is better at 2 than at 4, and FeRA a hundredth better than that whatever it has. */
function recordOf(spec: RunSpec): RunRecord {
  const names = ["cat", "dog", "owl"].map((name, i) => {
    const error = (1 + (i + spec.seed) / 100) * (spec.learningRate === 4 ? 1.1 : 1);
    return { name, error: spec.method === "lora" ? error : error * (0.99 + i * 1e-5) };
  });
  const heldOut = { error: names[0]!.error, byTimestep: [], byBand: {}, names };
  const rest = { parameters: 1, trainImages: 1, loss: undefined, secondsPerStep: 1, fileBytes: 1, machine: {} };
  return { spec, heldOut, ...rest, seconds: 1, finishedAt: "2026-01-01" };
}

const parts: [Part, RunSpec[]][] = [
  ["main", [...specsOf("lora", 4, "all"), ...specsOf("fera-energies", 4, "all"), ...specsOf("fera-plain", 2, "all")]],
  ["same-rate", [...specsOf("lora", 4, "all"), ...specsOf("lora", 2, "all")]],
  ["best-rate", specsOf("fera-energies", 2, "error")],
];
const plan: Plan = { runs: parts.flatMap(([, specs]) => specs), byPart: new Map(parts), waiting: [] };
const records = new Map(plan.runs.map((spec) => [spec.id, recordOf(spec)]));

it("compares every form of FeRA with LoRA at LoRA's best rate, beside each at its own", () => {
  const compared = mainAtSameRate(plan, records, STEPS);
  expect(compared.cells.map(({ row }) => row).sort()).toEqual(["fera-energies", "fera-plain"]);
  for (const { interval } of compared.cells) expect(interval!.estimate).toBeCloseTo(-1, 1);
  expect(compared.best!.rate).toBe(2);
  const { rate, cells } = compared.formsAtBest!;
  expect(rate).toBe(2);
  expect(cells.map(({ row }) => row).sort()).toEqual(["fera-energies", "fera-plain"]);
  for (const { interval } of cells) expect(interval!.estimate).toBeCloseTo(-1, 1);
  expect(sameRateSection(compared).join("\n")).toContain("Every form of FeRA at 2, as LoRA of rank 24");
});

it("says nothing of forms at that rate where none has been trained at it", () => {
  const without = new Map([...records].filter(([, { spec }]) => spec.measures === "all"));
  const none = { ...plan, byPart: new Map(parts.filter(([part]) => part !== "best-rate")) };
  expect(mainAtSameRate(none, without, STEPS).formsAtBest).toBeUndefined();
});
