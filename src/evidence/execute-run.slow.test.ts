// Real runs of every kind of method, of two steps, on a tiny model.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeTinyIconModel } from "../../test/support/tiny-icon-model.js";
import { targetLayers } from "../adapters/index.js";
import { loadPipeline } from "../pipelines/index.js";
import "../runtime/node.js";
import "../storage/node.js";
import { type Budget, budgetOf } from "./budget.js";
import { executeRun } from "./execute-run.js";
import { METHODS, methodNamed } from "./methods.js";
import type { RunRecord } from "./records.js";
import { runSpec } from "./records.js";
import { RunContext } from "./run-context.js";

let folder: string;
let budget: Budget;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-runs-"));
  await writeTinyIconModel(folder);
  const pipeline = await loadPipeline(folder);
  budget = budgetOf(targetLayers(pipeline.denoiser));
  await pipeline.release();
});
afterAll(() => rm(folder, { recursive: true }));

async function run(name: string, seed = 0, context?: RunContext): Promise<RunRecord> {
  const method = methodNamed(name, METHODS);
  const config = method.config?.(budget);
  const spec = runSpec({
    ...{ method: name, task: { kind: "style", style: "twemoji" }, seed, steps: method.kind === "none" ? 0 : 2 },
    ...{ learningRate: 1e-3, measures: "all" },
    adapter: config && { type: config.adapterType, config: config.toJSON() },
    settings: { model: folder, modelHash: "tiny", batchSize: 2, limit: 3, drawingSteps: 2 },
  });
  return executeRun(spec, { threads: 1, context });
}

it("all methods of a seed see the same drawings and noise, and each is measured whole", {
  timeout: 300_000,
}, async () => {
  const records = new Map<string, RunRecord>();
  for (const name of ["none", "lora", "fera-plain", "dora", "full"]) records.set(name, await run(name));
  const none = records.get("none")!;
  expect(none).toMatchObject({ parameters: 0, own: { drift: 0 } });
  expect(none.loss).toBeUndefined();
  const first = records.get("lora")!.loss!.first;
  for (const [name, { parameters, loss, heldOut, own, drawings, secondsPerStep, fileBytes, gates }] of records) {
    expect(heldOut!.names.map((each) => each.name)).toEqual(none.heldOut!.names.map((each) => each.name));
    expect(heldOut!.names.every(({ drawing }) => drawing!.lab > 0 && drawing!.shape >= 0)).toBe(true);
    expect(drawings!.diversity).toBeGreaterThan(0);
    expect(own!.base).toBe(none.own!.base);
    expect(gates !== undefined).toBe(name === "fera-plain");
    if (name === "none") continue;
    // What is fresh changes nothing: the first batch's loss is the base's.
    expect(loss!.first / first).toBeCloseTo(1, 4);
    expect(own!.drift).toBeGreaterThan(0);
    expect(heldOut!.error).not.toBe(none.heldOut!.error);
    expect(Math.min(parameters, secondsPerStep!, fileBytes!)).toBeGreaterThan(0);
  }
  const again = await run("lora");
  expect(again.heldOut).toEqual(records.get("lora")!.heldOut);
  expect((await run("lora", 1)).loss!.first).not.toBe(first);
  // What runs of one process share changes none of them.
  const context = new RunContext(1);
  for (const name of ["full", "lora", "none", "fera-plain", "lora"]) {
    const { heldOut, own, drawings, gates, loss } = records.get(name)!;
    expect(await run(name, 0, context), name).toMatchObject({ heldOut, own, drawings, ...(gates && { gates }), loss });
  }
  await context.forget();
});
