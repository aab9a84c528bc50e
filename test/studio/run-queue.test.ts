// The queue of trainings where the disk takes nothing any more. Real processes of `fera train`, which fail at once.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { clearRun } from "../../src/cli/training-run.js";
import { Predictions } from "../../src/studio/predictions.js";
import type { RunState } from "../../src/studio/protocol.js";
import { RunQueue } from "../../src/studio/run-queue.js";

let runs: string;
let queue: RunQueue;

beforeEach(async () => {
  runs = await mkdtemp(join(tmpdir(), "fera-queue-"));
  queue = new RunQueue({
    ...{ runs, program: "dist/cli/main.js", clearRun },
    onChange: () => undefined,
    beforeStart: async () => undefined,
  });
  await queue.open();
});

afterEach(async () => {
  await queue.close();
  await rm(runs, { recursive: true });
});

const saved = () => join(runs, ".studio/runs.json");

/** A folder in its place: no file can be written there, by nobody. */
async function refuseWrites(): Promise<void> {
  await rm(saved(), { force: true });
  await mkdir(join(saved(), "full"), { recursive: true });
}

async function until(id: string, state: RunState): Promise<void> {
  for (let tries = 0; queue.record(id)?.state !== state; tries++) {
    if (tries > 3000) throw new Error(`${id} is ${queue.record(id)?.state}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

it("a training that could not be noted down is not in the queue", async () => {
  await refuseWrites();
  await expect(queue.add("lost", {})).rejects.toThrow();
  expect(queue.records).toEqual([]);
  await rm(saved(), { recursive: true });
  await queue.add("next", {});
  await until("next", "failed");
  expect(queue.records.map(({ id }) => id)).toEqual(["next"]);
});

it("goes on behind a training whose end could not be noted down", async () => {
  await queue.add("first", {});
  await until("first", "running");
  await refuseWrites();
  await until("first", "failed");
  await rm(saved(), { recursive: true });
  await queue.add("second", {});
  await until("second", "failed");
  expect(queue.record("second")?.error).toMatch(/--model/);
});

it("refuses a name that its files could not have", async () => {
  await expect(queue.add("漢".repeat(80), {})).rejects.toThrow(/200 bytes/);
});

it.skipIf(process.platform !== "linux")(
  "does not take another program for the training whose number it has",
  async () => {
    await queue.close();
    await mkdir(join(runs, "cut/checkpoints"), { recursive: true });
    await writeFile(join(runs, "cut/run.json"), "{}");
    // This process: it is alive, and trains nothing.
    await writeFile(join(runs, "cut/.training.lock"), JSON.stringify({ pid: process.pid, host: hostname(), id: "x" }));
    const record = { id: "cut", state: "running", config: {}, isStarted: true, changedAt: 0 };
    await mkdir(join(runs, ".studio"), { recursive: true });
    await writeFile(saved(), JSON.stringify({ runs: [record] }));
    queue = new RunQueue({
      ...{ runs, program: "dist/cli/main.js", clearRun },
      onChange: () => undefined,
      beforeStart: async () => undefined,
    });
    await queue.open();
    expect(queue.record("cut")?.state).toBe("paused");
  },
);

it("measures one training at a time, also for two pages that ask at once", async () => {
  const predictions = new Predictions({
    program: "dist/cli/main.js",
    runs: async () => [],
    isTraining: async () => false,
    emit: () => undefined,
  });
  const ask = () => predictions.predict({}, { steps: 1 }, new AbortController().signal);
  const results = await Promise.allSettled([ask(), ask()]);
  const reasons = results.map((result) => (result.status === "rejected" ? (result.reason as Error).message : ""));
  expect(reasons).toEqual([expect.stringMatching(/--model/), expect.stringMatching(/Another prediction/)]);
});
