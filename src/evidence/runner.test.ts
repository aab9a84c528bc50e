// The runner with runs that take no time: what they find follows from their specs. Real ones are in evidence.slow.test.ts.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { TargetLayer } from "../adapters/index.js";
import "../storage/node.js";
import { hash32 } from "../training/data/icon-names.js";
import { budgetOf } from "./budget.js";
import { makePlan } from "./plan.js";
import type { RunRecord, RunSpec } from "./records.js";
import { writeEvidence } from "./report.js";
import { type Execute, runStudy } from "./runner.js";
import type { PlanOptions } from "./spec-maker.js";
import { readRecords, type Study, writeRecord, writeStudy } from "./study-folder.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-runner-"));
});
afterEach(() => rm(folder, { recursive: true }));

const layers = ["to_q", "to_k", "to_v", "to_out.0"].map(
  (name): TargetLayer => ({
    path: `mid_block.attn.${name}`,
    kind: "linear",
    inFeatures: 64,
    outFeatures: 64,
    kernelSize: 1,
  }),
);
const budget = budgetOf(layers);
const settings = { model: "/home/someone/model", modelHash: "abc", batchSize: 2, drawingSteps: 2 };
const study: Study = { settings, preset: "full", steps: 6, seeds: 3, isTuned: true };
const asked = { parts: ["main", "time"], styles: ["twemoji"], methods: ["dora", "none"] } as const;
const planOf = (records: ReadonlyMap<string, RunRecord>, isEstimate = false, more: Partial<PlanOptions> = asked) =>
  makePlan({ ...study, ...{ parts: [], budget, records, isEstimate }, ...more });

/** DoRA has a hundredth less error than LoRA, and takes twice as long. */
function found(spec: RunSpec): RunRecord {
  const isSlow = spec.method === "dora";
  const names = ["cat", "dog", "sun", "bee"].map((name) => {
    const noise = (text: string) => hash32(text) / 2 ** 32 - 0.5;
    const common = 1 + 0.1 * noise(name) + 0.1 * noise(`${spec.seed}`);
    return { name, error: common * (isSlow ? 0.99 : 1) + 1e-4 * noise(`${name} ${spec.id}`) };
  });
  const error = names.reduce((sum, each) => sum + each.error, 0) / names.length;
  const isMeasured = spec.measures !== "speed";
  return {
    ...{ spec, parameters: budget.parameters, trainImages: 9, loss: undefined, secondsPerStep: isSlow ? 0.4 : 0.2 },
    cpuSecondsPerStep: isSlow ? 0.4 : 0.2,
    ...{
      peakMemoryBytes: 1e8,
      fileBytes: 1e6,
      seconds: 3,
      finishedAt: "2026-01-01T00:00:00Z",
      machine: { node: "v20" },
    },
    ...(isMeasured && {
      heldOut: {
        error,
        byTimestep: [{ from: 0, to: 1000, error }],
        byBand: { low: error / 2, high: error / 2 },
        names,
      },
    }),
  };
}

const quick: Execute = async (spec) => found(spec);

async function runAll(execute: Execute, processes = 1, signal?: AbortSignal) {
  await writeStudy(folder, study);
  const records = await readRecords(folder);
  const result = await runStudy({
    ...{ plan: planOf, records, execute, processes, signal },
    keep: (record) => writeRecord(folder, record),
  });
  await writeEvidence(folder, {
    study,
    budget,
    records,
    plan: planOf(records, false, { parts: ["main", "time", "rates", "speed"] }),
  });
  return result;
}

const files = async () =>
  Promise.all(["README.md", "runs.json", "runs.csv"].map((name) => readFile(join(folder, name), "utf8")));

it("cut and gone on with, and by several processes, it gives the same page and the same runs", async () => {
  await runAll(quick);
  const whole = await files();
  expect(JSON.parse(whole[1]!).runs[0]).toMatchObject({ method: "lora", seed: 0 });
  await rm(folder, { recursive: true });

  const controller = new AbortController();
  let done = 0;
  const cut = runAll(
    async (spec, { signal }) => {
      if (++done === 9) controller.abort();
      signal?.throwIfAborted();
      return found(spec);
    },
    1,
    controller.signal,
  );
  await expect(cut).rejects.toThrow(/aborted/);
  const kept = await readRecords(folder);
  expect(kept.size).toBe(8);
  const again: string[] = [];
  const order: Execute = async (spec) => {
    again.push(spec.id);
    // The later ones are done first.
    await new Promise((resolve) => setTimeout(resolve, hash32(spec.id) % 7));
    return found(spec);
  };
  await runAll(order, 3);
  expect(again.filter((id) => kept.has(id))).toEqual([]);
  expect(new Set(again).size).toBe(again.length);
  expect(await files()).toEqual(whole);
});

it("goes on without a run that fails, tells it, and tries it again the next time", async () => {
  const isBad = ({ method, seed, measures }: RunSpec) => method === "dora" && seed === 1 && measures === "all";
  const { failures } = await runAll(async (spec) => {
    if (isBad(spec)) throw new Error("its process ended with SIGKILL.");
    return found(spec);
  }, 2);
  expect(failures.map(({ spec }) => spec.method)).toEqual(["dora", "dora"]);
  const [page] = await files();
  expect(page).toContain("not complete");
  expect((await runAll(quick)).failures).toEqual([]);
});

it("runs timings alone, one of each method after the other", async () => {
  let [now, most] = [0, 0];
  const order: string[] = [];
  await runAll(async (spec) => {
    now++;
    if (spec.measures === "speed") {
      order.push(spec.method);
      expect(now).toBe(1);
    }
    most = Math.max(most, now);
    await new Promise((resolve) => setTimeout(resolve, 1));
    now--;
    return found(spec);
  }, 3);
  expect(most).toBe(3);
  expect(order).toEqual(["lora", "dora", "lora", "dora", "lora", "dora"]);
});

it("takes runs from what is published, does damaged ones again, and refuses to mix studies", async () => {
  await runAll(quick);
  const before = await readRecords(folder);
  expect(JSON.stringify([...before.values()])).not.toContain("someone");
  await rm(join(folder, "runs"), { recursive: true });
  expect([...(await readRecords(folder)).keys()].sort()).toEqual([...before.keys()].sort());
  await rm(join(folder, "runs.json"));
  await writeStudy(folder, { ...study, seeds: 4 });
  await writeFile(join(folder, "runs", "broken.json"), '{"spec":{"id":');
  expect((await readRecords(folder)).size).toBe(0);
  await expect(writeStudy(folder, { ...study, steps: 7 })).rejects.toThrow(
    /holds a study with other settings: steps was 6, is 7.*choose another --output/,
  );
});

it("claims what corrected intervals show, says what is missing, and nothing where there is no difference", async () => {
  await runAll(quick);
  const [page, , csv] = await files();
  expect(page).toMatch(
    /\| equal steps \(provisional\) \| DoRA \| held-out error \| better \| −1\.\d+ \[−1\.\d+, −0\.\d+\] % \| {2}\|/,
  );
  expect(page).toContain("Not all of the study has been run");
  expect(page).toContain("| DoRA | **−1.");
  expect(page).toMatch(/\| DoRA \| 3 \|\n/);
  expect(csv!.split("\n")[0]).toMatch(/^id,method,task,seed,steps,learning_rate,parameters/);
  await rm(folder, { recursive: true });
  await runAll(async (spec) => found({ ...spec, method: "lora" }));
  const [same] = await files();
  expect(same).toContain("Nothing: no corrected interval leaves zero out.");
});

it("tells what is the learning rate's doing: a method ahead of LoRA for its rate alone is level at the same one", async () => {
  const asked = { parts: ["main", "same-rate"], styles: ["twemoji"], methods: ["fera-plain"] } as const;
  await writeStudy(folder, study);
  const records = new Map<string, RunRecord>();
  // Tuned to different rates; on the style that is compared, one of these is better for both.
  const execute: Execute = async (spec) => {
    const tuned = spec.method === "lora" ? 1e-3 : 2e-3;
    const isGood = spec.task.style === "twemoji" ? spec.learningRate === 2e-3 : spec.learningRate === tuned;
    return found({ ...spec, method: isGood ? "dora" : "lora" });
  };
  const plan = (known: ReadonlyMap<string, RunRecord>, isEstimate?: boolean) => planOf(known, isEstimate, asked);
  const keep = async () => undefined;
  await runStudy({
    plan,
    records,
    keep,
    processes: 1,
    execute: async (spec) => ({ ...(await execute(spec, {})), spec }),
  });
  await writeEvidence(folder, { study, budget, records, plan: plan(records) });
  const [page] = await files();
  const [, main, same] = page!.split("\n## Equal steps");
  expect(main).toMatch(/\| FeRA, complete bands, no consistency loss \| \*\*−[01]\.\d+ \[/);
  expect(same).toMatch(/\| FeRA, complete bands, no consistency loss \| 0\.002 \| [−+]?0\.0\d \[/);
  // Who chose LoRA's rate afterwards would have taken the other one, beside which LoRA itself is worse and FeRA is level.
  expect(same).toContain("After the fact, a rate of 0.002 suits LoRA of rank 24 best");
  expect(same).toMatch(/\| method \| held-out error \|\n.*\n\| LoRA of rank 24 \| \*\*\+[01]\.\d+ \[/);
  // The claim stands beside what is left of it.
  expect(page).toMatch(/no consistency loss \| held-out error \| better \| −[01]\.\d+ \[\S+ \S+\] % \| [−+]?0\.0\d \[/);
  expect(page).not.toMatch(/\| equal steps, the same learning rate[^|]*\|/);
});

it("begins nothing when its time is up, tells what is left, and has it done the next time", async () => {
  await writeStudy(folder, study);
  const records = await readRecords(folder);
  const slow: Execute = async (spec) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return found(spec);
  };
  const options = { plan: planOf, records, keep: async () => undefined, processes: 2 };
  const first = await runStudy({ ...options, execute: slow, minutes: 0.02 / 60 });
  expect(records.size).toBeGreaterThan(0);
  expect(first.left).toBeGreaterThan(0);
  expect((await runStudy({ ...options, execute: quick })).left).toBe(0);
});
