// What a training does where a number is not finite, a checkpoint is the best, or another version goes on.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createObjective } from "../diffusion/index.js";
import { readSafetensors, writeSafetensors } from "../storage/tensor-file.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { readCheckpoint } from "./checkpoint.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { AdamW } from "./optimizers/adamw.js";
import type { StepMeasures } from "./report/step-report.js";
import type { DiffusionBatch, Trainable } from "./trainable.js";
import { MAX_ROLLBACKS, Trainer, type TrainerOptions } from "./trainer.js";

const IMAGES = 6;
const STEPS = 9;

const folders: string[] = [];
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), "fera-recovery-"));
  folders.push(made);
  return made;
};
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true });
});

/** Learns a scale w, loss mean (w·z_t − target)²: as a denoiser's step, without one. */
function scale(): Trainable {
  const weight = zeros([1]);
  return {
    parameters: new Map([["w", weight]]),
    async compute({ latents, target }: DiffusionBatch) {
      let loss = 0;
      let gradient = 0;
      for (const [i, z] of latents.data.entries()) {
        const difference = weight.data[0]! * z - target.data[i]!;
        loss += difference ** 2 / latents.size;
        gradient += (2 * difference * z) / latents.size;
      }
      return { losses: { loss, mse: loss }, gradients: new Map([["w", Float32Array.of(gradient)]]) };
    },
  };
}

/** @param bad - An image whose latents are not numbers. */
function data(bad?: number): EncodedDataset {
  const latents = randn([IMAGES, 1, 2, 2], { generator: new Generator(5) });
  if (bad !== undefined) latents.data.fill(Number.NaN, 4 * bad, 4 * bad + 4);
  return { latents, conditioning: {}, empty: {} };
}

function trainer(output: string, options: Partial<TrainerOptions> & { bad?: number } = {}): Trainer {
  const { bad, ...rest } = options;
  return new Trainer({
    trainable: scale(),
    batches: new DiffusionBatches(data(bad), {
      batchSize: 2,
      objective: createObjective({}),
      generator: new Generator(11),
    }),
    optimizer: new AdamW({ lr: 1e-2 }),
    steps: STEPS,
    output,
    nameOf: (row) => `image-${row}.png`,
    onMessage: () => {},
    ...rest,
  });
}

const lines = (output: string) =>
  readFileSync(join(output, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
const checkpoints = (output: string) =>
  readdirSync(join(output, "checkpoints"))
    .sort()
    .map((name) => Number(name.match(/\d{8}/)![0]));

describe("a loss that is not finite", () => {
  it("is named with its step, its tensors and the images of its batch", async () => {
    const output = folder();
    await expect(trainer(output, { bad: 4 }).run()).rejects.toThrow(
      /^step \d: the loss is NaN \(mse NaN\)\. The batch is .*"image-4\.png".*\. The latents of "image-4\.png" are not finite\..*lower the learning rate/,
    );
    const broken = scale();
    broken.parameters.get("w")!.data[0] = Number.NaN;
    await expect(trainer(folder(), { trainable: broken }).run()).rejects.toThrow(
      /The trained tensor "w" is not finite/,
    );
  });

  it("with rollback goes back to the newest checkpoint, leaves out that batch, says so, and resumes to the same bits", async () => {
    const messages: string[] = [];
    const restored: number[] = [];
    const output = folder();
    const options = { bad: 4, onNonFinite: "rollback", checkpointEvery: 2, keepCheckpoints: 0 } as const;
    const result = await trainer(output, {
      ...options,
      onMessage: (message) => void messages.push(message),
      onRestore: (step) => void restored.push(step),
    }).run();
    expect(result.finished).toBe(true);
    // Every image comes once in three batches: one of them is bad in each epoch.
    expect(messages).toHaveLength(Math.floor((STEPS + messages.length) / 3));
    expect(messages[0]).toMatch(
      /the loss is NaN .*"image-4\.png".* Going back to step \d, and on without this batch \(1 of/,
    );
    expect(restored).toHaveLength(messages.length);
    expect(lines(output).map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    expect(lines(output).every(({ loss }) => Number.isFinite(loss))).toBe(true);

    const last = readFileSync(result.checkpoint);
    const before = lines(output).map(({ loss }) => loss);
    for (const from of [0, 2, 4, 6]) {
      const cut = folder();
      const stopped = trainer(cut, {
        ...options,
        onStep: ({ step }) => {
          if (step > from) throw new Error("cut");
        },
      });
      await expect(stopped.run()).rejects.toThrow("cut");
      const resumed = trainer(cut, options);
      expect(await resumed.resume()).toBe(from);
      const { checkpoint } = await resumed.run();
      expect(lines(cut).map(({ loss }) => loss)).toEqual(before);
      expect(readFileSync(checkpoint).equals(last)).toBe(true);
    }
  });

  it("does not go back without end", async () => {
    const trainable: Trainable = {
      parameters: new Map([["w", zeros([1])]]),
      compute: async () => ({
        losses: { loss: Number.NaN, mse: Number.NaN },
        gradients: new Map([["w", new Float32Array(1)]]),
      }),
    };
    const messages: string[] = [];
    const run = trainer(folder(), {
      ...{ trainable, onNonFinite: "rollback" },
      onMessage: (message) => void messages.push(message),
    }).run();
    await expect(run).rejects.toThrow(`It has gone back ${MAX_ROLLBACKS} times, and does not do so again.`);
    expect(messages).toHaveLength(MAX_ROLLBACKS);
  });
});

describe("checkpoints", () => {
  const validated =
    (losses: Record<number, number>) =>
    async (step: number): Promise<StepMeasures | undefined> =>
      losses[step] === undefined
        ? undefined
        : { validation: { loss: losses[step], byTimestep: [], byBand: {}, count: 1 } };

  it.each([
    [1, [9]],
    [3, [7, 8, 9]],
    [0, [1, 2, 3, 4, 5, 6, 7, 8, 9]],
  ])("are kept by number: %i", async (keepCheckpoints, kept) => {
    const output = folder();
    await trainer(output, { checkpointEvery: 1, keepCheckpoints }).run();
    expect(checkpoints(output)).toEqual(kept);
  });

  it("of the lowest validation loss stays, also where it was not due, and a resumed run knows it", async () => {
    const output = folder();
    const measure = validated({ 0: 9, 3: 4, 5: 6, 8: Number.NaN });
    const options = { checkpointEvery: 4, keepCheckpoints: 1, measure };
    const stop = {
      onStep: ({ step }: { step: number }) =>
        Promise.resolve(step === 7 ? Promise.reject(new Error("cut")) : undefined),
    };
    await expect(trainer(output, { ...options, ...stop }).run()).rejects.toThrow("cut");
    expect(checkpoints(output)).toEqual([3, 4]);
    const resumed = trainer(output, options);
    expect(await resumed.resume()).toBe(4);
    expect(await resumed.run()).toMatchObject({ best: { step: 3, loss: 4 } });
    expect(checkpoints(output)).toEqual([3, STEPS]);
    expect(lines(output)[0]).toMatchObject({ step: 0, validation: { loss: 9 } });
  });

  it("leave nothing of a write that was killed", async () => {
    const output = folder();
    await trainer(output, { steps: 1 }).run();
    const left = join(output, "checkpoints/.checkpoint-00000002.safetensors.123.0a1b2c3d.tmp");
    writeFileSync(left, "half");
    const resumed = trainer(output, { steps: 2 });
    await resumed.resume();
    await resumed.run();
    expect(readdirSync(join(output, "checkpoints"))).toEqual([
      ...["checkpoint-00000001.safetensors", "checkpoint-00000002.safetensors"],
    ]);
  });

  it("of another version are gone on from, with words about what that cannot promise; newer formats are refused", async () => {
    const output = folder();
    const engine = { fera: "0.0.9", threads: "1" };
    const { checkpoint } = await trainer(output, { steps: 1, engine }).run();
    expect((await readCheckpoint(checkpoint)).engine).toEqual(engine);
    const messages: string[] = [];
    const onMessage = (message: string) => void messages.push(message);
    const same = trainer(output, { engine, onMessage });
    expect(await same.resume()).toBe(1);
    expect(messages).toEqual([]);
    const other = trainer(output, { engine: { ...engine, fera: "0.1.0" }, onMessage });
    expect(await other.resume()).toBe(1);
    expect(messages[0]).toMatch(
      /another engine: fera was 0\.0\.9, is 0\.1\.0\. .*same weights.* may differ in the last digits/,
    );

    const { tensors, metadata } = await readSafetensors(checkpoint);
    const header = { ...JSON.parse(metadata.fera_checkpoint!), format: 2 };
    await writeSafetensors(checkpoint, tensors, { fera_checkpoint: JSON.stringify(header) });
    await expect(trainer(output).resume()).rejects.toThrow(/newer version of fera \(format 2; this one reads 1\)/);
  });
});

it("names what of a checkpoint's header is malformed", async () => {
  const path = join(folder(), "checkpoint-00000001.safetensors");
  const header = { step: 1, stream: {}, fingerprint: "", skipped: [-1] };
  await writeSafetensors(path, new Map([["parameter.w", tensor([0], [1])]]), {
    fera_checkpoint: JSON.stringify(header),
  });
  await expect(readCheckpoint(path)).rejects.toThrow(/malformed best, drawn or skipped/);
});
