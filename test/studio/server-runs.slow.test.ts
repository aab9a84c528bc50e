// Trainings of `fera studio`: queue, pause, resume, failures, restarts, and runs of the command line. Real ones, of a tiny model.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { readGenerationSettings } from "../../src/pipelines/index.js";
import type { DrawnImage, Prediction, RunDetails, RunSummary, StudioEvent } from "../../src/studio/protocol.js";
import { runFera, writeTinyImages } from "../support/fera-program.js";
import { type StartedStudio, startStudio } from "../support/studio.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

const LIMIT_MS = 60_000;

let dir: string;
let model: string;
let data: string;
let studio: StartedStudio | undefined;
const cache = () => ({ FERA_CACHE: join(dir, "cache") });

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-studio-"));
  [model, data] = [join(dir, "model"), join(dir, "pictures")];
  await writeTinyPipeline(model);
  await writeTinyImages(data);
});

afterEach(async () => {
  await studio?.stop();
  studio = undefined;
});

afterAll(() => rm(dir, { recursive: true }));

const open = async (runs: string): Promise<StartedStudio> => {
  studio = await startStudio({ data: [data], runs: join(dir, runs), models: [model], env: cache() });
  return studio;
};

/** Steps of some 20 ms each. */
const settings = (steps: number, more: object = {}) => ({ model, data: [data], rank: 2, batchSize: 2, steps, ...more });

const until = (id: string, holds: (run: RunSummary) => boolean) => studio!.runUntil(id, holds);

const start = (name: string, options: object) => studio!.api<RunSummary>("runs", { name, settings: options });
const act = (id: string, action: string) => studio!.api<void>("run/action", { id, action });
const adapterOf = (runs: string, id: string) => readFile(join(dir, runs, id, "adapter.safetensors"));

describe("a training", () => {
  it("that is paused and resumed gives the adapter of one that never was, to the bit", async () => {
    await open("paused");
    expect(await start("cut", settings(60))).toMatchObject({ id: "cut", isOurs: true, steps: 60 });
    await until("cut", ({ step }) => step > 3);
    await act("cut", "pause");
    const paused = await until("cut", ({ state }) => state === "paused");
    expect(paused.step).toBeLessThan(60);
    expect(paused.canResume).toBe(true);
    // A page that shows it as it was a moment ago.
    await expect(act("cut", "pause")).rejects.toThrow(/"cut" is paused by now, so there is nothing to pause/);
    await act("cut", "resume");
    expect(await until("cut", ({ state }) => state === "finished")).toMatchObject({ step: 60 });
    await expect(act("cut", "stop")).rejects.toThrow(/is finished by now/);

    // The same on the command line, as the page shows it.
    const { command } = await studio!.api<RunDetails>("run?id=cut");
    expect(command).toMatch(/^npx fera train --model .* --steps 60 --batch-size 2$/);
    const words = ["train", "--model", model, "--data", data, "--rank", "2", "--batch-size", "2", "--steps", "60"];
    const cacheDir = join(dir, "cache-2");
    const { code } = await runFera(...words, "--output", join(dir, "paused/whole"), "--cache-dir", cacheDir);
    expect(code).toBe(0);
    expect(await adapterOf("paused", "cut")).toEqual(await adapterOf("paused", "whole"));
    const whole = (await studio!.api<RunSummary[]>("runs")).find(({ id }) => id === "whole");
    expect(whole).toMatchObject({ state: "finished", step: 60, isOurs: false, adapterKind: "fera" });
    expect(whole!.peakMemoryBytes).toBeGreaterThan(1e8);
    await expect(act("whole", "stop")).rejects.toThrow(/"whole" was started on the command line/);
  }, 100_000);

  it("waits for the one before; failing, it says why in words; queue and states outlive the studio, by any end", async () => {
    await open("queued");
    await start("long", settings(2000));
    const wrong = settings(2, {
      validationPrompts: ["a prompt of far more tokens than this model's tokenizer has room for"],
    });
    await start("failing", wrong);
    await start("never", settings(2));
    await expect(start("long", settings(2))).rejects.toThrow(/already a run "long"/);
    await expect(start("../x", settings(2))).rejects.toThrow(/name/);
    await expect(start("", settings(0))).rejects.toThrow(/--steps must be an integer of 1 or more; got 0/);
    await until("long", ({ step }) => step > 2);
    expect((await studio!.api<RunSummary[]>("runs")).map(({ id, state }) => [id, state])).toEqual([
      ["failing", "queued"],
      ["never", "queued"],
      ["long", "running"],
    ]);
    await act("never", "remove");

    // Killed: the training goes on, and is found again.
    await studio!.stop("SIGKILL");
    await open("queued");
    const found = await until("long", ({ state }) => state === "running");
    expect(found.isOurs).toBe(true);
    await until("long", ({ step }) => step > found.step);

    // Ended: it is paused.
    expect(await studio!.stop("SIGTERM")).toBe(0);
    await open("queued");
    expect(await until("long", () => true)).toMatchObject({ state: "paused", canResume: true });

    // What waited has had its turn.
    const failed = await until("failing", ({ state }) => state === "failed");
    expect(failed.error).toMatch(/^a prompt is longer than|^a caption is longer than the 8 tokens/);
    expect(failed.error).not.toMatch(/fera:|Usage/);
    await act("long", "stop");
    expect(await until("long", () => true)).toMatchObject({ state: "stopped", canResume: true });
    await act("long", "remove");
    expect((await studio!.api<RunSummary[]>("runs")).map(({ id }) => id)).toEqual(["failing"]);
  }, 100_000);
});

it("time and memory are predicted from a few steps, then from a run with the same options", async () => {
  await open("predicted");
  const first = await studio!.api<Prediction>("predict", { settings: settings(300) });
  expect(first.basis).toMatch(/^4 steps that were run just now/);
  expect(first.seconds).toBeGreaterThan(300 * first.secondsPerStep);
  expect(first.peakMemoryBytes).toBeGreaterThan(1e8);
  await start("four", settings(4));
  await until("four", ({ state }) => state === "finished");
  const second = await studio!.api<Prediction>("predict", { settings: settings(300) });
  expect(second).toMatchObject({
    basis: expect.stringContaining("the run four"),
    seconds: 300 * second.secondsPerStep,
  });
}, 100_000);

it("what was trained is drawn with and without, its routing beside each picture and its settings in the file", async () => {
  const { origin, token } = await open("drawn");
  await start("fera", settings(2, { validationPrompts: ["red"], validationSteps: 2, numValidationImages: 2 }));
  await until("fera", ({ state }) => state === "finished");
  const { pictures, adapterId } = await studio!.api<RunDetails>("run?id=fera");
  expect(pictures).toMatchObject([{ prompt: "red", images: 2 }]);
  expect(pictures[0]!.steps.map(({ step, files, routes }) => [step, files.length, routes!.length])).toEqual([
    [1, 2, 2],
    [2, 2, 2],
  ]);
  const { timesteps, gates } = pictures[0]!.steps[1]!.routes![1]!;
  expect([timesteps.length, gates.length, gates[0]![0]!.length]).toEqual([2, 2, 3]);
  expect(gates[0]![0]!.reduce((sum, gate) => sum + gate)).toBeCloseTo(1, 4);

  const events = await listen(origin, token);
  const grid = { x: { option: "adapterScale", values: [0.5, "1"] }, y: { option: "seed", values: [1, 2] } };
  const request = {
    model,
    prompt: "red",
    steps: 2,
    guidanceScale: 2,
    adapters: [{ id: adapterId, scale: 1 }],
    compare: true,
  };
  const { job } = await studio!.api<{ job: string }>("drawings", { ...request, grid });
  const drawn = await events.drawn(job);
  expect(drawn.map(({ x, y, withoutAdapters, seed }) => [x, y, withoutAdapters, seed])).toEqual([
    ...[
      [0, 0, false, 1],
      [0, 0, true, 1],
      [1, 0, false, 1],
      [1, 0, true, 1],
    ],
    ...[
      [0, 1, false, 2],
      [0, 1, true, 2],
      [1, 1, false, 2],
      [1, 1, true, 2],
    ],
  ]);
  expect(drawn.map(({ routes }) => routes.length)).toEqual([1, 0, 1, 0, 1, 0, 1, 0]);
  expect(drawn[1]!.id).toBe(drawn[3]!.id);
  const file = await fetch(`${origin}/api/drawing?${new URLSearchParams({ id: drawn[0]!.id, token })}`);
  expect(file.headers.get("content-type")).toBe("image/png");
  const found = readGenerationSettings(new Uint8Array(await file.arrayBuffer()));
  expect(found!.settings).toMatchObject({
    prompt: "red",
    seed: 1,
    steps: 2,
    model: "model",
    adapters: [{ scale: 0.5 }],
  });

  // Of another model: its message.
  const other = await studio!.api<{ job: string }>("drawings", { ...request, model: "embedded" });
  await expect(events.drawn(other.job)).rejects.toThrow(/is an adapter for another model/);
  const long = await studio!.api<{ job: string }>("drawings", { ...request, steps: 999 });
  await studio!.api("drawings/cancel", { job: long.job });
  expect(await events.drawn(long.job)).toEqual([]);
}, 100_000);

it("a drawing that is cancelled while the process that draws is only starting is not drawn", async () => {
  const { origin, token } = await open("cancelled");
  const events = await listen(origin, token);
  const request = { model, prompt: "red", steps: 999, guidanceScale: 2, adapters: [], compare: false };
  const { job } = await studio!.api<{ job: string }>("drawings", request);
  await studio!.api("drawings/cancel", { job });
  expect(await events.drawn(job)).toEqual([]);
}, 100_000);

/** The pictures of a job, as its events tell of them. */
/** Once it is resolved, no event is missed. */
async function listen(origin: string, token: string) {
  const events: StudioEvent[] = [];
  const answer = await fetch(`${origin}/api/events?token=${token}`);
  void (async () => {
    let text = "";
    for await (const part of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += part;
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) if (line.startsWith("data: ")) events.push(JSON.parse(line.slice(6)));
    }
  })().catch(() => undefined);
  return {
    async drawn(job: string): Promise<DrawnImage[]> {
      for (const begin = performance.now(); performance.now() - begin < LIMIT_MS; ) {
        const end = events.find((event) => event.kind === "drawingEnded" && event.job === job);
        if (end?.kind === "drawingEnded") {
          if (end.error !== undefined) throw new Error(end.error);
          return events.flatMap((event) => (event.kind === "drawn" && event.job === job ? [event.image] : []));
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`The drawing ${job} did not end.`);
    },
  };
}
