// The trainer over a step whose state stays on the device, here in the worker's memory, against one in main memory.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import { readSafetensors } from "../storage/index.js";
import "../storage/node.js";
import "../runtime/node.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { createObjective } from "../diffusion/index.js";
import { Generator, randn } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { ParameterAverage } from "./average.js";
import { latestCheckpoint } from "./checkpoint.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import { AdamW } from "./optimizers/adamw.js";
import { type StepReport, Trainer, type TrainerOptions } from "./trainer.js";

const STEPS = 8;
/** Clips some of the steps. */
const MAX_NORM = 0.004;
/** Between float32 and float64 arithmetic in the same formulas, over a few steps. */
const TOLERANCE = 1e-5;
const REFERENCE = "test/reference/unet-sd15";
const shape = { batchSize: 1, height: 8, width: 8, tokens: 5 };

let unet: UNet2DConditionModel;
let root: string;
const compiled: { release(): Promise<void> }[] = [];
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained(REFERENCE, { subfolder: "unet" });
  root = mkdtempSync(join(tmpdir(), "fera-device-training-"));
});
afterAll(async () => {
  rmSync(root, { recursive: true });
  for (const released of [...compiled, unet]) await released.release();
});

const newFolder = (): string => mkdtempSync(join(root, "run-"));

/** Everything of a training, in a fresh folder unless one is given, its state on the device or in main memory. */
async function training(
  stateOnDevice: boolean,
  { output = newFolder(), ...more }: Partial<TrainerOptions> = {},
  noiseSchedule: Record<string, number> = {},
) {
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters(`${REFERENCE}/adapters_initial.safetensors`);
  const optimizer = new AdamW({ lr: 1e-2, weightDecay: 0.1 });
  const average = new ParameterAverage(fera.parameters, 0.9);
  const step = await fera.compileTrainStep({ ...shape, optimizer, average, stateOnDevice });
  compiled.push(step);
  const data = {
    latents: randn([6, 4, 8, 8], { generator: new Generator(5) }),
    conditioning: { encoderHiddenStates: randn([6, 5, 24], { generator: new Generator(6) }) },
    empty: { encoderHiddenStates: randn([1, 5, 24], { generator: new Generator(7) }) },
  };
  const trainer = new Trainer({
    trainable: step,
    batches: new DiffusionBatches(data, {
      batchSize: 1,
      captionDropout: 0.3,
      objective: createObjective({ prediction_type: "v_prediction", ...noiseSchedule }),
      generator: new Generator(11),
    }),
    optimizer,
    average,
    steps: STEPS,
    output,
    schedule: "cosine",
    warmupSteps: 2,
    maxGradientNorm: MAX_NORM,
    ...more,
  });
  return { output, fera, optimizer, average, step, data, trainer };
}

const metrics = (output: string): StepReport[] =>
  readFileSync(join(output, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
/** Metrics without the times. */
const numbers = (output: string) =>
  metrics(output).map(({ seconds, stepsPerSecond, peakMemoryBytes, ...rest }) => rest);

const newest = async (output: string): Promise<string> => (await latestCheckpoint(join(output, "checkpoints")))!;

/** The largest relative error of any tensor. */
function errorBetween(a: ReadonlyMap<string, Tensor>, b: ReadonlyMap<string, Tensor>): number {
  expect([...a.keys()]).toEqual([...b.keys()]);
  const values = ({ data }: Tensor) => Array.from(data, Number);
  return Math.max(...[...a].map(([name, value]) => relativeError(values(value), values(b.get(name)!))));
}

/** Whether two runs logged the same, but for rounding. */
function expectSameMetrics(output: string, expected: string): void {
  const [made, wanted] = [numbers(output), numbers(expected)];
  expect(made).toHaveLength(wanted.length);
  for (const [i, { loss, mse, fecl, gradientNorm, sampleLosses, ...rest }] of made.entries()) {
    const other = wanted[i]!;
    const { step, steps, learningRate, timesteps } = other;
    expect(rest).toEqual({ step, steps, learningRate, timesteps });
    expect(relativeError(sampleLosses as unknown as number[], other.sampleLosses as unknown as number[])).toBeLessThan(
      TOLERANCE,
    );
    // Of a loss in the rounding of the other one, only that.
    const errors = [loss - other.loss, mse! - other.mse!, fecl! - other.fecl!].map((error) => error / other.loss);
    for (const error of [...errors, gradientNorm / other.gradientNorm - 1]) {
      expect(Math.abs(error)).toBeLessThan(TOLERANCE);
    }
  }
}

describe("a trainer over a step whose state stays on the device", () => {
  let host: Awaited<ReturnType<typeof training>>;
  let device: Awaited<ReturnType<typeof training>>;
  beforeAll(async () => {
    [host, device] = [await training(false), await training(true)];
    for (const { trainer } of [host, device]) await trainer.run();
  });

  it("logs the losses, norms and learning rates of one in main memory", () => {
    expectSameMetrics(device.output, host.output);
    const clipped = metrics(device.output).filter(({ gradientNorm }) => gradientNorm > MAX_NORM);
    expect(clipped.length).toBeGreaterThan(0);
    expect(clipped.length).toBeLessThan(STEPS);
  });

  it("ends with its parameters, moments and average, in the checkpoint too", async () => {
    expect(errorBetween(device.fera.parameters, host.fera.parameters)).toBeLessThan(TOLERANCE);
    expect(errorBetween(device.average.values, host.average.values)).toBeLessThan(TOLERANCE);
    expect(device.average.updates).toBe(STEPS);
    expect(device.optimizer.stepCount).toBe(STEPS);
    const [made, expected] = await Promise.all(
      [device, host].map(async ({ output }) => (await readSafetensors(await newest(output))).tensors),
    );
    expect([...made!.keys()].filter((name) => name.startsWith("average."))).not.toHaveLength(0);
    expect(errorBetween(made!, expected!)).toBeLessThan(TOLERANCE);
  });

  it("brings the state into main memory for checkpoints only", async () => {
    const changedAt: number[] = [];
    let seen: number[] = [];
    const run = await training(true, {
      checkpointEvery: 3,
      onStep: ({ step }) => {
        const now = inMemory();
        if (relativeError(now, seen) > 0) changedAt.push(step);
        seen = now;
      },
    });
    // The maps themselves: asking the model or the average for theirs would bring the values back.
    const maps = [run.fera.parameters, run.average.values];
    const inMemory = () => maps.flatMap((map) => [...map.values()].flatMap(({ data }) => [...data]));
    seen = inMemory();
    await run.trainer.run();
    // What the checkpoints of steps 3 and 6 read shows at the next one.
    expect(changedAt).toEqual([4, 7]);
    expect(relativeError(inMemory(), seen)).toBeGreaterThan(0);
    expect(numbers(run.output)).toEqual(numbers(device.output));
  });

  it("cut off by its signal and resumed is the run that was never interrupted", async () => {
    const controller = new AbortController();
    const onStep = ({ step }: StepReport) => void (step === 3 && controller.abort());
    const cut = await training(true, { signal: controller.signal, onStep });
    expect(await cut.trainer.run()).toMatchObject({ step: 3, finished: false });
    const resumed = await training(true, { output: cut.output });
    expect(await resumed.trainer.resume()).toBe(3);
    const result = await resumed.trainer.run();
    expect(result.finished).toBe(true);
    expect(result.parameters).toBe(resumed.average.values);
    expect(numbers(cut.output)).toEqual(numbers(device.output));
    expect(readFileSync(await newest(cut.output)).equals(readFileSync(await newest(device.output)))).toBe(true);
  });

  it("goes on from a checkpoint that a run in main memory left", async () => {
    const controller = new AbortController();
    const onStep = ({ step }: StepReport) => void (step === 3 && controller.abort());
    const cut = await training(false, { signal: controller.signal, onStep });
    await cut.trainer.run();
    const resumed = await training(true, { output: cut.output });
    await resumed.trainer.resume();
    await resumed.trainer.run();
    expectSameMetrics(cut.output, host.output);
    expect(errorBetween(resumed.average.values, host.average.values)).toBeLessThan(TOLERANCE);
  });

  it("adds up the gradients of several batches as one in main memory does", async () => {
    const runs = [
      await training(true, { gradientAccumulation: 2 }),
      await training(false, { gradientAccumulation: 2 }),
    ];
    for (const { trainer } of runs) await trainer.run();
    expectSameMetrics(runs[0]!.output, runs[1]!.output);
    expect(errorBetween(runs[0]!.average.values, runs[1]!.average.values)).toBeLessThan(TOLERANCE);
  });

  it("refuses a loss that is not finite with the same message, all state and the last checkpoint intact", async () => {
    const messages: string[] = [];
    const states: ReadonlyMap<string, Tensor>[] = [];
    for (const stateOnDevice of [true, false]) {
      const run = await training(stateOnDevice, {
        checkpointEvery: 2,
        // The batch of the third step is drawn already.
        onStep: ({ step }) => void (step === 2 && run.data.latents.data.fill(Number.NaN)),
      });
      const error = await run.trainer.run().catch((error: Error) => error);
      messages.push((error as Error).message.replace(run.output, "OUTPUT"));
      states.push(new Map([...run.fera.stateDict(), ...run.optimizer.stateDict(), ...run.average.values]));
      const resumed = await training(stateOnDevice, { output: run.output, checkpointEvery: 2 });
      expect(await resumed.trainer.resume()).toBe(2);
      await resumed.trainer.run();
      expectSameMetrics(run.output, host.output);
    }
    expect(messages[0]).toBe(
      "step 4: the loss is NaN (mse NaN, fecl NaN). OUTPUT/checkpoints/checkpoint-00000002.safetensors is intact; " +
        "lower the learning rate or clip gradients.",
    );
    expect(messages[0]).toBe(messages[1]);
    expect(errorBetween(states[0]!, states[1]!)).toBeLessThan(TOLERANCE);
  });

  it("refuses a gradient that is not finite with the same message, which names the tensor", async () => {
    const messages: string[] = [];
    for (const stateOnDevice of [true, false]) {
      // Velocities are then the latents, negative: large targets without large inputs, which would be normalized.
      const { fera, data, trainer } = await training(stateOnDevice, {}, { beta_start: 0.9999, beta_end: 0.9999 });
      data.latents.data.forEach((value, i, all) => {
        all[i] = 1e8 * value;
      });
      // With `up` at 0, `down` does not reach the loss, but the gradient of `up`.
      const { path } = fera.layers.find(({ path }) => path.endsWith("to_v"))!;
      fera.parameters.get(`${path}.up`)!.data.fill(0);
      fera.parameters.get(`${path}.down`)!.data.fill(1e36);
      const before = fera.stateDict();
      await expect(trainer.run().catch((error: Error) => void messages.push(error.message))).resolves.toBeUndefined();
      expect(messages.at(-1)).toContain(
        `step 1: the gradient of "${path}.up" is not finite. There is no checkpoint yet;`,
      );
      expect(fera.stateDict()).toEqual(before);
    }
    expect(messages[0]).toBe(messages[1]);
  });
});

it("steps without a trainer keep the average too, wherever it is", async () => {
  const [device, host] = [await training(true), await training(false)];
  const generator = new Generator(3);
  const objective = createObjective({});
  const stream = new DiffusionBatches(device.data, { batchSize: 1, objective, generator });
  for (let i = 0; i < 3; i++) {
    const batch = (await stream.next()) as Parameters<typeof device.step.run>[0];
    for (const { step } of [device, host]) await step.run(batch);
  }
  expect(errorBetween(device.average.values, host.average.values)).toBeLessThan(TOLERANCE);
  expect(errorBetween(device.average.values, device.fera.parameters)).toBeGreaterThan(TOLERANCE);
});

it("an average of other parameters is refused", async () => {
  const { fera } = await training(false);
  const average = new ParameterAverage(new Map(fera.stateDict()), 0.9);
  await expect(fera.compileTrainStep({ ...shape, average })).rejects.toThrow(/must be one of this model's adapters/);
});
