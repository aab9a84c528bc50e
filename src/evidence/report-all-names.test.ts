import { expect, it } from "vitest";
import type { Plan } from "./plan.js";
import { type RunRecord, type RunSpec, runSpec } from "./records.js";
import { allNamesSection, compareOnAllNames } from "./report-all-names.js";

const RATES = { lora: 4, "fera-timestep": 2 };
const settings = { model: "", modelHash: "a", batchSize: 1, drawingSteps: 1 };

const specOf = (method: string, seed: number, learningRate: number, limit?: number): RunSpec =>
  runSpec({
    ...{ method, task: { kind: "style", style: "twemoji" }, seed, steps: 5, learningRate },
    ...{ measures: "error", settings: { ...settings, limit }, adapter: { type: method.split("-")[0]!, config: {} } },
  });

/** LoRA's error is 2 at its own rate and 1.9 at the other; FeRA's is a thousandth less than that. */
function recordOf(spec: RunSpec): RunRecord {
  const names = Array.from({ length: spec.settings.limit ?? 6 }, (_, i) => {
    const error = (spec.learningRate === 4 ? 2 : 1.9) + i / 100 + spec.seed / 1000;
    return { name: `name ${i}`, error: spec.method === "lora" ? error : error * (0.999 + i * 1e-6) };
  });
  const heldOut = { error: names[0]!.error, byTimestep: [], byBand: {}, names };
  const rest = { parameters: 1, trainImages: 1, secondsPerStep: 1, fileBytes: 1, machine: {} };
  return { spec, heldOut, loss: { first: 1, last: spec.learningRate }, ...rest, seconds: 1, finishedAt: "2026-01-01" };
}

const seeds = [0, 1, 2, 3, 4];

function studyOf(limit: number | undefined): [Plan, Map<string, RunRecord>] {
  const main = seeds.flatMap((seed) => Object.entries(RATES).map(([name, rate]) => specOf(name, seed, rate, limit)));
  const all = seeds.flatMap((seed) => [
    ...Object.entries(RATES).map(([name, rate]) => specOf(name, seed, rate)),
    specOf("lora", seed, 2),
  ]);
  const byPart = new Map([
    ["main", main],
    ["all-names", all],
  ] as const);
  const runs = [...main, ...all];
  return [{ runs, byPart, waiting: [] }, new Map(runs.map((spec) => [spec.id, recordOf(spec)]))];
}

it("compares on all names at tuned rates, at one rate, and with LoRA's best", () => {
  const comparison = compareOnAllNames(...studyOf(3))!;
  expect(comparison).toMatchObject({ names: 6, otherNames: 3, repeated: 10, lossDifference: 0 });
  expect(comparison.tuned.map(({ row }) => row)).toEqual(["fera-timestep"]);
  expect(comparison.tuned[0]!.interval!.estimate).toBeCloseTo(-5, 0);
  expect(comparison.sameRate.cells[0]!.interval!.estimate).toBeCloseTo(-0.1, 2);
  expect(comparison.sameRate.best!.rate).toBe(2);
  const text = allNamesSection(comparison, " (provisional)").join("\n");
  expect(text).toContain("on all 6 names, with noise of their own; all other tables have 3 of them (provisional)");
  expect(text).toMatch(/\| FeRA, gates from the timestep \| \*\*−5\.\d+ \[.*\| \*\*−0\.10 \[.*\| \*\*−0\.10 \[/);
});

it("compares all forms at the rate that suits LoRA best, beside what they have at their own", () => {
  const [plan, records] = studyOf(3);
  const at = (rate: number, limit?: number) => seeds.map((seed) => specOf("fera-energies", seed, rate, limit));
  const own = at(4, 3);
  const [onAll, onAllAtBest] = [at(4), at(2)];
  const byPart = new Map([...plan.byPart, ["main", [...plan.byPart.get("main")!, ...own]]] as const)
    .set("best-rate", at(2, 3))
    .set("all-names", [...plan.byPart.get("all-names")!, ...onAll, ...onAllAtBest]);
  for (const spec of [...own, ...onAll, ...onAllAtBest]) records.set(spec.id, recordOf(spec));
  const { tuned, sameRate } = compareOnAllNames({ ...plan, byPart }, records)!;
  const of = (cells: typeof tuned) => cells.find(({ row }) => row === "fera-energies")!.interval!.estimate;
  expect(of(tuned)).toBeCloseTo(-0.1, 2);
  expect(of(sameRate.best!.cells)).toBeGreaterThan(4);
  expect(sameRate.formsAtBest).toMatchObject({ rate: 2 });
  expect(of(sameRate.formsAtBest!.cells)).toBeCloseTo(-0.1, 2);
  const text = allNamesSection(compareOnAllNames({ ...plan, byPart }, records), "").join("\n");
  expect(text).toMatch(/both at 2 \|\n.*\n(.*\n)*\| FeRA, gates are the energies \|.*\+5\.\d+.*\| \*\*−0\.10 \[/);
});

it("says by how much a training that was repeated differs", () => {
  const [plan, records] = studyOf(3);
  const changed = records.get(plan.byPart.get("all-names")![0]!.id)!;
  records.set(changed.spec.id, { ...changed, loss: { first: 1, last: 4.02 } });
  expect(compareOnAllNames(plan, records)!.lossDifference).toBeCloseTo(0.005, 6);
});

it("is left out where the main part has all names, and where nothing has been run", () => {
  expect(compareOnAllNames(...studyOf(undefined))).toBeUndefined();
  expect(allNamesSection(compareOnAllNames(studyOf(3)[0], new Map()), "")).toEqual([]);
});
