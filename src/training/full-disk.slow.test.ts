// A disk that is full at every kind of write of a training: what was kept stays, and the training goes on from it.

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeTinyImages } from "../../test/support/fera-program.js";
import { HAS_FULL_DEVICE } from "../../test/support/full-device.js";
import { writeTinyPipeline } from "../../test/support/tiny-pipeline.js";
import { FeRAConfig } from "../adapters/index.js";
import "../index.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import { readCheckpoint } from "./checkpoint.js";
import { type FineTuneOptions, fineTune } from "./fine-tune.js";
import { type ImageDataset, openDataset } from "./index.js";

const STEPS = 3;

let dir: string;
let pipeline: StableDiffusionPipeline;
let dataset: ImageDataset;
let reference: number[];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "fera-full-disk-"));
  await writeTinyPipeline(join(dir, "model"));
  await writeTinyImages(join(dir, "images"));
  pipeline = await StableDiffusionPipeline.fromPretrained(join(dir, "model"), { threads: 1 });
  dataset = await openDataset(join(dir, "images"), { size: 32 });
  await tune("uncut");
  reference = losses("uncut");
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const tune = (name: string, options: Partial<FineTuneOptions> = {}) =>
  fineTune({
    ...{ pipeline, dataset, output: join(dir, name), config: new FeRAConfig({ rank: 1 }), seed: 0 },
    ...{ steps: STEPS, batchSize: 2, learningRate: 1e-3, checkpointEvery: 1, cacheDir: join(dir, "cache") },
    ...{ validationPrompts: ["red"], validateEvery: 2, log: "tensorboard", onMessage: () => {} },
    ...options,
  });

const losses = (name: string): number[] =>
  readFileSync(join(dir, name, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).loss);

/** Puts the device that is always full in a file's place. */
function fill(path: string): void {
  if (existsSync(path)) unlinkSync(path);
  symlinkSync("/dev/full", path);
}

/** What is written, when the disk is full, and which checkpoint is left. */
const KINDS: [what: string, path: (output: string) => string, atStep: number, newest: number][] = [
  ["metrics", (output) => join(output, "metrics.jsonl"), 2, 2],
  ["a checkpoint", (output) => join(output, "checkpoints/checkpoint-00000002.safetensors"), 2, 1],
  ["a picture of all prompts", (output) => join(output, "validation/step-000002.png"), 2, 2],
  [
    "a prompt's picture",
    (output) => {
      const folder = readdirSync(join(output, "validation")).find((name) => /^prompt-\w+$/.test(name))!;
      return join(output, "validation", folder, "step-000002.png");
    },
    ...([2, 2] as const),
  ],
  ["an event file", (output) => join(output, "tensorboard", readdirSync(join(output, "tensorboard"))[0]!), 1, 2],
  ["the adapter", (output) => join(output, "adapter.safetensors"), 3, 3],
];

describe.runIf(HAS_FULL_DEVICE)("a disk that is full for", () => {
  it.each(KINDS)(
    "%s leaves the last good checkpoint, from which the training ends as if uncut",
    async (what, path, atStep, newest) => {
      const output = join(dir, what);
      let filled = "";
      const full = tune(what, {
        onStep: ({ step }) => {
          if (step !== atStep) return;
          filled = path(output);
          fill(filled);
        },
      });
      await expect(full).rejects.toThrow(
        /cannot be written: no space left.*checkpoint-0000000\d\.safetensors is intact/,
      );
      unlinkSync(filled);
      const names = readdirSync(join(output, "checkpoints")).sort();
      expect(names.filter((name) => name.endsWith(".tmp"))).toEqual([]);
      expect((await readCheckpoint(join(output, "checkpoints", names.at(-1)!))).step).toBe(newest);
      const { finished } = await tune(what, { resume: true });
      expect(finished).toBe(true);
      // The lines of the metrics are lost with their file.
      if (what !== "metrics") expect(losses(what)).toEqual(reference);
      for (const file of ["adapter.safetensors", "checkpoints/checkpoint-00000003.safetensors"]) {
        expect(readFileSync(join(output, file)).equals(readFileSync(join(dir, "uncut", file))), file).toBe(true);
      }
      expect(readdirSync(join(output, "validation"))).toContain("step-000002.png");
    },
  );

  it("what tells the data, before the first step, names the file and leaves nothing that must be replaced", async () => {
    const output = join(dir, "data");
    mkdirSync(output);
    fill(join(output, "dataset.json"));
    await expect(tune("data")).rejects.toThrow(/dataset\.json: cannot be written: no space left/);
    expect(readdirSync(output)).not.toContain("metrics.jsonl");
  });
});
