import { describe, expect, it } from "vitest";
import type { RunState, RunSummary } from "../../../src/studio/protocol.js";
import { actionsOf, queuePlaces } from "./run-actions.js";

const run = (changes: Partial<RunSummary>): RunSummary => ({
  id: "a",
  state: "running",
  step: 1,
  steps: 10,
  model: "m",
  adapterKind: "fera",
  changedAt: 0,
  canResume: false,
  isOurs: true,
  ...changes,
});
const labels = (changes: Partial<RunSummary>) => actionsOf(run(changes)).map(({ label }) => label);

describe("actionsOf", () => {
  it("offers what each state allows", () => {
    expect(labels({ state: "running" })).toEqual(["Pause", "Stop"]);
    expect(labels({ state: "queued" })).toEqual(["Take out"]);
    expect(labels({ state: "stopping" })).toEqual([]);
    expect(labels({ state: "paused", canResume: true })).toEqual(["Resume", "Stop", "Remove"]);
    expect(labels({ state: "failed" })).toEqual(["Remove"]);
    expect(labels({ state: "finished" })).toEqual(["Remove"]);
  });

  it("neither stops nor deletes a run of the command line, but goes on with it", () => {
    for (const state of ["running", "finished", "failed"] as RunState[]) {
      expect(labels({ state, isOurs: false })).toEqual([]);
    }
    expect(labels({ state: "stopped", isOurs: false, canResume: true })).toEqual(["Resume"]);
  });
});

describe("queuePlaces", () => {
  it("counts those that wait, the oldest first", () => {
    const runs = [
      run({ id: "new", state: "queued", changedAt: 9 }),
      run({ id: "now" }),
      run({ id: "old", state: "queued", changedAt: 3 }),
    ];
    expect([...queuePlaces(runs)]).toEqual([
      ["old", 1],
      ["new", 2],
    ]);
  });
});
