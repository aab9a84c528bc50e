import fs, { appendFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { outputPath } from "../training/output-folder.js";
import type { Models } from "./model-choices.js";
import type { RunQueue } from "./run-queue.js";
import { Runs } from "./runs.js";

const RUNS = 100;
let folder: string;
let runs: Runs;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-runs-"));
  for (let i = 0; i < RUNS; i++) await writeRun(`run-${i}`);
  const queue = { records: [], record: () => undefined } as unknown as RunQueue;
  runs = new Runs(folder, queue, { idOf: (path: string) => path } as Models);
});
afterAll(() => rm(folder, { recursive: true }));

async function writeRun(id: string): Promise<void> {
  await mkdir(join(folder, id));
  await writeFile(join(folder, id, "run.json"), '{"steps":10,"model":"m"}');
  await writeFile(join(folder, id, "metrics.jsonl"), '{"step":1,"loss":1}\n');
}

/** How many files the system is asked about meanwhile. */
async function lookedAt(work: () => Promise<unknown>): Promise<number> {
  const { stat } = fs;
  let count = 0;
  fs.stat = ((...parameters: Parameters<typeof stat>) => {
    count++;
    return stat(...parameters);
  }) as typeof stat;
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    fs.stat = stat;
    syncBuiltinESMExports();
  }
  return count;
}

const stepOf = async (id: string, isGlance: boolean) => (await runs.list(isGlance)).find((run) => run.id === id)?.step;

it("glances at hundreds of runs without asking the disk about those that rest, and finds what is new", async () => {
  expect(await lookedAt(() => runs.list())).toBeGreaterThan(4 * RUNS);
  expect(await lookedAt(() => runs.list(true))).toBe(0);
  await writeRun("new");
  expect(await lookedAt(() => runs.list(true))).toBeLessThan(12);
  expect(await runs.list(true)).toHaveLength(RUNS + 1);
});

it("glances at the files of a run at which somebody trains; at those of the others it looks where it is to", async () => {
  const lock = JSON.stringify({ pid: 1, host: "another machine", id: "x" });
  await writeFile(outputPath(join(folder, "run-1"), "lock"), lock);
  expect((await runs.list()).find(({ id }) => id === "run-1")?.state).toBe("running");
  for (const id of ["run-1", "run-2"]) await appendFile(join(folder, id, "metrics.jsonl"), '{"step":2,"loss":1}\n');
  expect([await stepOf("run-1", true), await stepOf("run-2", true)]).toEqual([2, 1]);
  expect(await stepOf("run-2", false)).toBe(2);
  await rm(outputPath(join(folder, "run-1"), "lock"));
  expect((await runs.list(true)).find(({ id }) => id === "run-1")?.state).toBe("stopped");
});
