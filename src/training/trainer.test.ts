import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLIPTextModel } from "../models/clip-text/clip-text-model.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import "../runtime/node.js";
import { WholeModel } from "../../examples/icons/whole-model.js";
import { HAS_FULL_DEVICE } from "../../test/support/full-device.js";
import { createObjective } from "../diffusion/index.js";
import { Generator, randint, randn } from "../tensor/random.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { ParameterAverage } from "./average.js";
import { clearCheckpoints, latestCheckpoint } from "./checkpoint.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { AdamW } from "./optimizers/adamw.js";
import { Trainer, type TrainerOptions } from "./trainer.js";

const UNET = {
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 16,
  attention_head_dim: 2,
};
const TEXT = {
  vocab_size: 20,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 4,
  hidden_act: "quick_gelu",
};
const STEPS = 8;

const folders: string[] = [];
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), "fera-trainer-"));
  folders.push(made);
  return made;
};
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true });
});

const data: EncodedDataset = {
  latents: randn([6, 4, 8, 8], { generator: new Generator(5) }),
  conditioning: { inputIds: randint(0, 20, [6, 4], { generator: new Generator(6) }) },
  empty: { inputIds: tensor([1, 1, 1, 1], [1, 4], "int64") },
};

async function wholeModel(batchSize = 2): Promise<WholeModel> {
  const generator = new Generator(3);
  const unet = UNet2DConditionModel.fromConfig(UNET, generator);
  const textEncoder = CLIPTextModel.fromConfig(TEXT, generator);
  return WholeModel.compile({ denoiser: unet, textEncoder }, { batchSize, height: 8, width: 8, tokens: 4 });
}

async function trainer(output: string, options: Partial<TrainerOptions> = {}, batchSize = 2): Promise<Trainer> {
  const trainable = options.trainable ?? (await wholeModel(batchSize));
  return new Trainer({
    trainable,
    batches: new DiffusionBatches(data, {
      batchSize,
      captionDropout: 0.3,
      objective: createObjective({ prediction_type: "v_prediction" }),
      generator: new Generator(11),
    }),
    optimizer: new AdamW({ lr: 1e-3 }),
    steps: STEPS,
    output,
    schedule: "cosine",
    warmupSteps: 2,
    average: new ParameterAverage(trainable.parameters, 0.9),
    ...options,
  });
}

const losses = (output: string): number[] =>
  readFileSync(join(output, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).loss);

describe("a run", () => {
  let reference: string;
  beforeAll(async () => {
    reference = folder();
    await (await trainer(reference)).run();
  });

  it("writes one line of metrics per step and a checkpoint", () => {
    expect(losses(reference)).toHaveLength(STEPS);
    expect(readdirSync(join(reference, "checkpoints"))).toEqual([`checkpoint-0000000${STEPS}.safetensors`]);
  });

  it("gives the same numbers for the same seed", async () => {
    const again = folder();
    await (await trainer(again)).run();
    expect(losses(again)).toEqual(losses(reference));
  });

  it("cut off by its signal and resumed gives the losses and weights of one that was never interrupted", async () => {
    const cut = folder();
    const controller = new AbortController();
    const stopped = await (
      await trainer(cut, { signal: controller.signal, onStep: ({ step }) => void (step === 3 && controller.abort()) })
    ).run();
    expect(stopped).toMatchObject({ step: 3, finished: false });
    const resumed = await trainer(cut);
    expect(await resumed.resume()).toBe(3);
    const result = await resumed.run();
    expect(result.finished).toBe(true);
    expect(losses(cut)).toEqual(losses(reference));
    const file = `checkpoints/checkpoint-0000000${STEPS}.safetensors`;
    expect(readFileSync(join(cut, file)).equals(readFileSync(join(reference, file)))).toBe(true);
  });

  it("killed between checkpoints goes on from the last one with the same losses", async () => {
    const killed = folder();
    const crash = new Error("crash");
    const run = await trainer(killed, {
      checkpointEvery: 2,
      onStep: ({ step }) => {
        if (step === 5) throw crash;
      },
    });
    await expect(run.run()).rejects.toBe(crash);
    const resumed = await trainer(killed, { checkpointEvery: 2 });
    expect(await resumed.resume()).toBe(4);
    await resumed.run();
    expect(losses(killed)).toEqual(losses(reference));
  });

  it("averages the gradients of accumulated batches", async () => {
    const small = folder();
    const options = { steps: 2, warmupSteps: 0, average: undefined };
    await (await trainer(small, { ...options, gradientAccumulation: 2 }, 2)).run();
    const values = losses(small);
    const model = await wholeModel(2);
    const stream = new DiffusionBatches(data, {
      batchSize: 2,
      captionDropout: 0.3,
      objective: createObjective({ prediction_type: "v_prediction" }),
      generator: new Generator(11),
    });
    const [a, b] = [await model.compute(await stream.next()), await model.compute(await stream.next())];
    expect(values[0]).toBeCloseTo((a.losses.loss + b.losses.loss) / 2, 6);
    await model.release();
  });
});

it("stratified timesteps take one from every part of the range", async () => {
  const stream = new DiffusionBatches(data, {
    batchSize: 5,
    timestepSampling: "stratified",
    objective: createObjective({}),
    generator: new Generator(2),
  });
  for (let i = 0; i < 4; i++) {
    const parts = Array.from((await stream.next()).timesteps.data as BigInt64Array, (timestep) =>
      Math.floor(Number(timestep) / 200),
    );
    expect(parts.sort()).toEqual([0, 1, 2, 3, 4]);
  }
});

describe("what the trainer refuses", () => {
  it("a loss that is not finite: step and tensor named, the last checkpoint intact", async () => {
    const output = folder();
    const trainable = await wholeModel();
    const run = await trainer(output, {
      trainable,
      checkpointEvery: 2,
      onStep: ({ step }) => {
        if (step === 3) trainable.parameters.get("unet.conv_in.weight")!.data.fill(Number.NaN);
      },
    });
    await expect(run.run()).rejects.toThrow(/step 4: the loss is NaN \(mse NaN\)\. .*checkpoint-00000002.* is intact/);
    const kept = await latestCheckpoint(join(output, "checkpoints"));
    expect(kept).toMatch(/checkpoint-00000002/);
    const resumed = await trainer(output, { checkpointEvery: 2 });
    expect(await resumed.resume()).toBe(2);
  });

  it("no metrics whose last line was cut off: the line is forgotten", async () => {
    const output = folder();
    await (await trainer(output, { steps: 2, warmupSteps: 0 })).run();
    const metrics = join(output, "metrics.jsonl");
    const whole = readFileSync(metrics, "utf8");
    writeFileSync(metrics, `${whole}{"step":3,"lo`);
    expect(await (await trainer(output, { steps: 2, warmupSteps: 0 })).resume()).toBe(2);
    expect(readFileSync(metrics, "utf8")).toBe(whole);
  });

  it("a checkpoint of other settings", async () => {
    const output = folder();
    await (await trainer(output, { steps: 1, warmupSteps: 0, fingerprint: "a" })).run();
    await expect((await trainer(output, { fingerprint: "b" })).resume()).rejects.toThrow(
      /of another training: a, now b/,
    );
    const settings = { config: { rank: 4, alpha: 1 }, seed: 0 };
    const other = folder();
    await (await trainer(other, { steps: 1, warmupSteps: 0, fingerprint: JSON.stringify(settings) })).run();
    const changed = JSON.stringify({ ...settings, config: { rank: 8, alpha: 1 } });
    await expect((await trainer(other, { fingerprint: changed })).resume()).rejects.toThrow(
      /another training: rank was 4, is 8\. Resume/,
    );
  });

  it("to mix its checkpoints with those of an earlier run", async () => {
    const output = folder();
    await (await trainer(output, { steps: 1, warmupSteps: 0 })).run();
    await expect((await trainer(output)).run()).rejects.toThrow(/left by an earlier run/);
  });

  it("a damaged checkpoint: it is set aside, the one before taken, and the result the same", async () => {
    const output = folder();
    const options = { steps: 4, checkpointEvery: 2 };
    const whole = await (await trainer(output, options)).run();
    const newest = readFileSync(whole.checkpoint);
    const messages: string[] = [];
    for (const damaged of [newest.subarray(0, 1000), new Uint8Array()]) {
      writeFileSync(whole.checkpoint, damaged);
      const onMessage = (message: string) => void messages.push(message);
      const isTold = damaged.length > 0;
      const resumed = await trainer(output, { ...options, ...(isTold && { onMessage }) });
      expect(await resumed.resume()).toBe(2);
      expect(readFileSync(`${whole.checkpoint}.damaged`)).toHaveLength(damaged.length);
      await resumed.run();
      expect(readFileSync(whole.checkpoint).equals(newest)).toBe(true);
    }
    expect(messages).toHaveLength(1);
    expect(messages[0]).toMatch(/checkpoint-00000004.*truncated.*\.damaged; .*checkpoint-00000002.* is taken instead/);
    await clearCheckpoints(join(output, "checkpoints"));
    expect(readdirSync(join(output, "checkpoints"))).toEqual([]);
  });

  it("checkpoints that are all damaged", async () => {
    const output = folder();
    const { checkpoint } = await (await trainer(output, { steps: 1, warmupSteps: 0 })).run();
    writeFileSync(checkpoint, readFileSync(checkpoint).subarray(0, 1000));
    await expect((await trainer(output)).resume()).rejects.toThrow(
      /no checkpoint can be read, .*checkpoint-00000001.*truncated.* start anew in another output folder/,
    );
    expect(existsSync(checkpoint)).toBe(true);
  });

  it("fewer steps than are done", async () => {
    const output = folder();
    await (await trainer(output, { steps: 3 })).run();
    await expect((await trainer(output, { steps: 2 })).resume()).rejects.toThrow(/3 steps are done; .* got 2/);
  });

  // A device that is always full.
  it.runIf(HAS_FULL_DEVICE)("to lose steps to a full disk: leaves a checkpoint, and names it", async () => {
    const output = folder();
    symlinkSync("/dev/full", join(output, "metrics.jsonl"));
    await expect((await trainer(output)).run()).rejects.toThrow(
      /^step 1: .*metrics\.jsonl: cannot be written: no space left.*checkpoint-00000001\.safetensors is intact; resume/,
    );
    expect(await (await trainer(output)).resume()).toBe(1);
  });

  it("an output folder that is a file, before any step", async () => {
    const output = join(folder(), "taken");
    writeFileSync(output, "");
    await expect((await trainer(output)).run()).rejects.toThrow(/cannot be written/);
  });

  for (const [name, options] of [
    ["steps", { steps: 0 }],
    ["gradientAccumulation", { gradientAccumulation: 1.5 }],
    ["average", { average: new ParameterAverage(new Map([["other", zeros([1])]]), 0.9) }],
  ] as const) {
    it(`an invalid ${name}`, async () => {
      const trainable = { parameters: new Map(), compute: () => Promise.reject(new Error("never")) };
      await expect(trainer(folder(), { trainable, ...options })).rejects.toThrow(new RegExp(`${name} must`));
    });
  }
});

it("training a whole model lowers its loss on one batch", async () => {
  const model = await wholeModel();
  const stream = new DiffusionBatches(data, {
    batchSize: 2,
    objective: createObjective({}),
    generator: new Generator(1),
  });
  const batch = await stream.next();
  const optimizer = new AdamW({ lr: 3e-3 });
  const live = new Map([...model.parameters].map(([name, { data }]) => [name, data]));
  const first = await model.compute(batch);
  optimizer.step(live, first.gradients);
  for (let i = 0; i < 15; i++) optimizer.step(live, (await model.compute(batch)).gradients);
  expect((await model.compute(batch)).losses.loss).toBeLessThan(first.losses.loss * 0.8);
  await model.release();
});
