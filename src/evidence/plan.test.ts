import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { targetLayers } from "../adapters/index.js";
import { UNet2DConditionModel } from "../models/index.js";
import "../runtime/node.js";
import "../storage/node.js";
import { ALL_METHODS } from "./all-methods.js";
import { type Budget, budgetOf, parametersOf } from "./budget.js";
import { HYPOTHESES } from "./hypotheses.js";
import { METHODS, methodNamed } from "./methods.js";
import { PARTS } from "./parts.js";
import { makePlan } from "./plan.js";
import { PRESETS } from "./presets.js";
import type { RunRecord, RunSpec } from "./records.js";
import { runSpec } from "./records.js";
import type { PlanOptions } from "./spec-maker.js";
import { TEST_STYLES, TUNING_STYLE } from "./tasks.js";

let unet: UNet2DConditionModel;
let budget: Budget;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained("assets/icons", { subfolder: "unet" });
  budget = budgetOf(targetLayers(unet));
});
afterAll(() => unet.release());

const settings = { model: "/somewhere", modelHash: "abc", batchSize: 8, drawingSteps: 12 };
const { adapter: ADAPTER_RATES } = PRESETS.full.rates;
const planned = (options: Partial<PlanOptions> = {}) =>
  makePlan({
    preset: "full",
    parts: PARTS,
    seeds: 2,
    steps: 600,
    isTuned: true,
    budget,
    settings,
    records: new Map(),
    ...options,
  });

/** A record with an error and a time. */
function record(spec: RunSpec, error: number, secondsPerStep = 0.3): [string, RunRecord] {
  const heldOut = { error, byTimestep: [], byBand: {}, names: [{ name: "cat", error }] };
  const rest = { parameters: 1, trainImages: 1, loss: undefined, peakMemoryBytes: 1, fileBytes: 1, machine: {} };
  return [
    spec.id,
    {
      spec,
      secondsPerStep: 1,
      cpuSecondsPerStep: secondsPerStep,
      heldOut,
      ...rest,
      seconds: 1,
      finishedAt: "2026-01-01",
    },
  ];
}

const configText = ({ adapter }: RunSpec): string => JSON.stringify(adapter);

describe("methods", () => {
  it("train the same number of parameters within 2 %, where their kind allows it", () => {
    const shares = ALL_METHODS.filter(({ isBudgeted }) => isBudgeted).map((method) => {
      const config = method.config!(budget);
      return [method.name, parametersOf(config, budget.layers) / budget.parameters] as const;
    });
    expect(shares.length).toBeGreaterThan(20);
    for (const [name, share] of shares) {
      expect(Math.abs(share - 1), name).toBeLessThan(0.02);
    }
  });

  it("act at one scale: alpha over rank of LoRA, a third of that by expert", () => {
    const json = (name: string) => methodNamed(name, ALL_METHODS).config!(budget).toJSON();
    expect(json("lora")).toMatchObject({ r: 24, lora_alpha: 48 });
    expect(json("fera-plain")).toMatchObject({ rank: 8, num_experts: 3, alpha: 48 });
    expect(json("h-two")).toMatchObject({ rank: 12, num_experts: 2, alpha: 48 });
    expect(json("h-six")).toMatchObject({ rank: 4, num_experts: 6, alpha: 48 });
  });

  it("have names of their own, and as many tries of a rate", () => {
    expect(new Set(ALL_METHODS.map(({ name }) => name)).size).toBe(ALL_METHODS.length);
    for (const { rates } of Object.values(PRESETS)) expect(rates.adapter).toHaveLength(rates.full.length);
    expect(HYPOTHESES.length).toBeGreaterThanOrEqual(10);
    for (const { prediction } of HYPOTHESES) expect(prediction.length).toBeGreaterThan(20);
    expect(() => methodNamed("lara", METHODS)).toThrow(/no method "lara"; there are lora, fera/);
  });
});

describe("the plan", () => {
  it("tunes rates first, and does the rest when they are known", () => {
    const first = planned({ parts: ["main"], methods: ["fera-plain"] });
    expect(first.runs).toHaveLength(2 * ADAPTER_RATES.length);
    expect(first.runs.every(({ task, measures }) => task.style === TUNING_STYLE && measures === "error")).toBe(true);
    expect(first.waiting).toEqual([{ part: "main", for: "learning rates" }]);
    const records = new Map(first.runs.map((spec) => record(spec, Math.abs(Math.log(spec.learningRate / 1e-3)))));
    const second = planned({ parts: ["main"], methods: ["fera-plain"], records });
    expect(second.waiting).toEqual([]);
    const main = second.byPart.get("main")!;
    expect(main).toHaveLength(2 * 4 * 2);
    expect(main.every(({ learningRate }) => learningRate === 1e-3)).toBe(true);
    expect(main.slice(0, 8).every(({ seed }) => seed === 0)).toBe(true);
    expect(planned({ parts: ["main"], methods: ["fera-plain"], isTuned: false }).runs).toHaveLength(16);
  });

  it("gives each method the steps that fit into LoRA's time", () => {
    const options = { parts: ["time"] as const, methods: ["dora"], isTuned: false };
    const first = planned(options);
    expect(first.waiting).toEqual([{ part: "time", for: "seconds a step" }]);
    const timings = first.runs.filter(({ measures }) => measures === "speed");
    expect(timings).toHaveLength(6);
    const seconds = { lora: [0.2, 0.21, 0.9], dora: [0.3, 0.5, 0.4] };
    const records = new Map(
      timings.map((spec) => record(spec, 1, seconds[spec.method as "lora" | "dora"][spec.seed]!)),
    );
    const second = planned({ ...options, records }).byPart.get("time")!;
    expect(new Map(second.map(({ method, steps }) => [method, steps]))).toEqual(
      new Map([
        ["lora", 600],
        ["dora", Math.round((600 * 0.21) / 0.4)],
      ]),
    );
  });

  it("trains LoRA at the rates that forms of FeRA were tuned to, its own among them", () => {
    const options = { parts: ["same-rate"] as const, methods: ["fera", "fera-plain", "dora"] };
    const first = planned(options);
    expect(first.waiting).toEqual([{ part: "same-rate", for: "learning rates" }]);
    const best: Record<string, number> = { fera: 1e-3, "fera-plain": 2e-3 };
    const records = new Map(first.runs.map((spec) => record(spec, Math.abs(spec.learningRate - best[spec.method]!))));
    const runs = planned({ ...options, records }).byPart.get("same-rate")!;
    expect(runs).toHaveLength(2 * 2 * TEST_STYLES.length);
    expect(runs.every(({ method, measures }) => method === "lora" && measures === "all")).toBe(true);
    expect(new Set(runs.map(({ learningRate }) => learningRate))).toEqual(new Set([1e-3, 2e-3]));
  });

  it("trains the forms of FeRA at the rate that suits LoRA best, but those that have it", () => {
    const options = { parts: ["best-rate"] as const, methods: ["fera", "fera-plain", "fera-energies", "dora"] };
    const tuned: Record<string, number> = { "fera-plain": 2e-3 };
    let records = new Map<string, RunRecord>();
    const waited: string[] = [];
    for (let round = 0; round < 3; round++) {
      const { runs, waiting } = planned({ ...options, records });
      waited.push(...waiting.map((each) => each.for));
      // On the tuning style LoRA's best is 1e-3, on the others 2e-3.
      const isTuning = ({ task }: RunSpec) => task.style === "openmoji";
      records = new Map(
        runs.map((spec) => {
          const best = isTuning(spec) ? (tuned[spec.method] ?? 1e-3) : 2e-3;
          return record(spec, Math.abs(spec.learningRate - best));
        }),
      );
    }
    expect(waited).toEqual(["learning rates", "part same-rate"]);
    const runs = planned({ ...options, records }).byPart.get("best-rate")!;
    expect(runs).toHaveLength(2 * 2 * TEST_STYLES.length);
    expect(new Set(runs.map(({ method }) => method))).toEqual(new Set(["fera", "fera-energies"]));
    expect(runs.every(({ learningRate, measures }) => learningRate === 2e-3 && measures === "error")).toBe(true);
  });

  it("measures the main part's trainings on every held-out name, once where they have been", () => {
    const options = { parts: ["main", "same-rate", "all-names"] as const, methods: ["fera-plain"], isTuned: false };
    const limited = planned({ ...options, preset: "quick", settings: { ...settings, limit: 32 } }).byPart;
    const [main, all] = [limited.get("main")!, limited.get("all-names")!];
    const trainings = (runs: readonly RunSpec[]) =>
      new Set(
        runs.map(({ method, task, seed, learningRate, steps }) =>
          [method, task.style, seed, learningRate, steps].join(),
        ),
      );
    expect(trainings(all)).toEqual(trainings([...main, ...limited.get("same-rate")!]));
    expect(all.every((run) => run.settings.limit === undefined && run.measures === "error")).toBe(true);
    const idsOf = (runs: readonly RunSpec[]) => new Set(runs.map(({ id }) => id));
    expect(all.some(({ id }) => idsOf(main).has(id))).toBe(false);
    const { byPart } = planned(options);
    expect(idsOf(byPart.get("all-names")!)).toEqual(idsOf([...byPart.get("main")!, ...byPart.get("same-rate")!]));
  });

  it("trains some methods four times as long, each at every rate that one of them has", () => {
    const options = { parts: ["long"] as const };
    const first = planned(options);
    const best: Record<string, number> = { "fera-plain": 2e-3, "fera-timestep": 2e-3 };
    const records = new Map(
      first.runs.map((spec) => record(spec, Math.abs(spec.learningRate - (best[spec.method] ?? 1e-3)))),
    );
    const runs = planned({ ...options, records }).byPart.get("long")!;
    const methods = new Set(runs.map(({ method }) => method));
    const long = runs.filter(({ steps }) => steps === 4 * 600);
    expect(runs.length - long.length).toBe(2 * methods.size);
    for (const method of methods) {
      const own = long.filter((run) => run.method === method);
      expect(own.map(({ seed, learningRate }) => [seed, learningRate].join()).sort()).toEqual([
        ...["0,0.001", "0,0.002", "1,0.001", "1,0.002"],
      ]);
    }
  });

  it("tries what was trained longer again on other styles, at LoRA's best rate on those and in its time", () => {
    const options = { parts: ["long-confirm"] as const };
    const seconds: Record<string, number> = { "fera-energies": 0.4, "fera-timestep": 0.3 };
    const isOther = ({ task }: RunSpec) => task.style === "fluent-emoji-flat" || task.style === "twemoji";
    // Few steps take the first rate, many the second, and on the other styles a rate that none of them was tuned to.
    const errorOf = (run: RunSpec) => {
      const { method, steps, learningRate } = run;
      return Math.abs(learningRate - (isOther(run) ? 7e-4 : steps === 600 && method !== "fera-timestep" ? 1e-3 : 2e-3));
    };
    let records = new Map<string, RunRecord>();
    const waited: string[] = [];
    for (let round = 0; round < 7; round++) {
      const { runs, waiting } = planned({ ...options, records });
      waited.push(...waiting.map((each) => each.for));
      records = new Map(runs.map((spec) => record(spec, errorOf(spec), seconds[spec.method] ?? 0.3)));
    }
    const search = "the rate that suits longer training";
    expect(waited).toEqual(["learning rates", "part long", search, search, search, search, "seconds a step"]);
    const part = planned({ ...options, records }).byPart.get("long-confirm")!;
    const tried = part.filter(({ learningRate }) => learningRate !== 7e-4);
    expect(tried.every(({ method }) => method === "lora")).toBe(true);
    expect(new Set(tried.map(({ learningRate }) => learningRate))).toEqual(new Set([4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4]));
    const runs = part.filter(({ learningRate }) => learningRate === 7e-4);
    expect(new Set(runs.map(({ task }) => task.style))).toEqual(new Set(["fluent-emoji-flat", "twemoji"]));
    const stepsOf = (name: string) => new Set(runs.flatMap(({ method, steps }) => (method === name ? [steps] : [])));
    expect(stepsOf("lora")).toEqual(new Set([2400]));
    expect(stepsOf("fera-timestep")).toEqual(new Set([2400]));
    expect(stepsOf("fera-energies")).toEqual(new Set([2400, 1800]));
  });

  it("trains all methods of few drawings and of one thing at LoRA's rate", () => {
    const options = { parts: ["few-shot", "subject"] as const };
    const first = planned(options);
    expect(new Set(first.runs.map(({ method }) => method))).toEqual(new Set(["lora", "none"]));
    const records = new Map(first.runs.map((spec) => record(spec, Math.abs(spec.learningRate - 2e-3))));
    const { byPart, waiting } = planned({ ...options, records });
    expect(waiting).toEqual([]);
    for (const part of options.parts) {
      const runs = byPart.get(part)!.filter(({ method }) => method !== "none");
      expect(new Set(runs.map(({ learningRate }) => learningRate))).toEqual(new Set([2e-3]));
      expect(new Set(runs.map(({ method }) => method)).size).toBeGreaterThan(2);
    }
  });

  it("exchanges one thing of a method whose own runs are those of the main part", () => {
    const { byPart } = planned({ isTuned: false });
    const main = new Set(byPart.get("main")!.map(({ id }) => id));
    const configs: string[] = [];
    for (const part of ["consistency", "bands", "sigma", "numbers"] as const) {
      const runs = byPart.get(part)!;
      const own = runs.filter(({ method }) => method === "fera-plain");
      expect(own.map(({ seed }) => seed)).toEqual([0, 1]);
      expect(own.every(({ id }) => main.has(id))).toBe(true);
      configs.push(...runs.filter(({ seed, method }) => seed === 0 && method !== "fera-plain").map(configText));
    }
    const plain = byPart.get("main")!.find(({ method }) => method === "fera-plain")!;
    expect(configs).not.toContain(configText(plain));
    expect(new Set(configs).size).toBe(configs.length);
  });

  it("confirms the two best hypotheses, with tries of their own, on styles that did not choose them", () => {
    let records = new Map<string, RunRecord>();
    const options = { parts: ["confirm"] as const, seeds: 1 };
    for (let round = 0; round < 6; round++) {
      const { runs } = planned({ ...options, records });
      records = new Map(
        runs.map((spec) => record(spec, { "h-two": 0.1, "h-balance": 0.2 }[spec.method] ?? 1 + spec.learningRate)),
      );
    }
    const { byPart, waiting, runs } = planned({ ...options, records });
    expect(waiting).toEqual([]);
    const confirmed = byPart.get("confirm")!;
    expect(new Set(confirmed.map(({ method }) => method))).toEqual(new Set(["lora", "h-two", "h-balance"]));
    expect(new Set(confirmed.map(({ task }) => task.style))).toEqual(new Set(TEST_STYLES));
    for (const name of ["h-two", "h-balance"]) {
      const tries = runs.filter(
        ({ method, measures, task }) => method === name && measures === "error" && task.style === TUNING_STYLE,
      );
      expect(new Set(tries.map(({ learningRate }) => learningRate)).size).toBe(ADAPTER_RATES.length);
    }
  });

  it("has every run once, whichever parts ask for it, and counts all of it", () => {
    const { runs, byPart } = planned({ isEstimate: true, seeds: 5 });
    expect(new Set(runs.map(({ id }) => id)).size).toBe(runs.length);
    expect([...byPart.keys()]).toEqual([...PARTS]);
    expect([...byPart.values()].flat().length).toBeGreaterThan(runs.length);
    expect(runs.length).toBeGreaterThan(1000);
  });

  it("names a run by all that changes its numbers, and not by where the model lies", () => {
    const task = { kind: "style", style: "twemoji" } as const;
    const spec = { method: "lora", task, seed: 0, steps: 5, learningRate: 1e-3, measures: "all", settings } as const;
    const { id } = runSpec(spec);
    expect(id).toMatch(/^lora--twemoji--seed-0--[0-9a-f]{10}$/);
    expect(runSpec({ ...spec, settings: { ...settings, model: "elsewhere" } }).id).toBe(id);
    const others = [
      { ...spec, steps: 6 },
      { ...spec, learningRate: 2e-3 },
      { ...spec, measures: "error" as const },
      { ...spec, settings: { ...settings, modelHash: "abd" } },
      { ...spec, adapter: { type: "lora", config: { r: 4 } } },
    ];
    expect(new Set([id, ...others.map((other) => runSpec(other).id)]).size).toBe(6);
  });
});
