// The program that measures this library, one part per process: `measured-part.ts TASK`, TASK as JSON. Started by
// measured-process.ts.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AdamW, createObjective, FeRAModel, Generator, randn, Trainer, UNet2DConditionModel } from "../src/index.js";
import type { WeightType } from "../src/models/index.js";
import type { CompileOptions } from "../src/runtime/index.js";
import { writeSafetensors } from "../src/storage/index.js";
import { DiffusionBatches, ParameterAverage } from "../src/training/index.js";
import { type MachineTask, measureMachine } from "./machine.js";
import { sayPhase, sayResult } from "./measured-process.js";
import { ownPeakBytes } from "./memory.js";
import { OnnxTimes } from "./onnx-times.js";
import { readStepInputs } from "./step-inputs.js";

/** What a model task measures. */
export interface ModelTask {
  /** The whole training step; its gradients; one denoising step with and without adapters; or the trainer's loop. */
  part: "step" | "gradients" | "inference" | "train";
  /** A folder with `unet/`. */
  model: string;
  /** A file of {@link readStepInputs}. */
  inputs: string;
  threads: number;
  /** How frozen weights are kept. */
  dtype?: WeightType;
  /** Where `part: "gradients"` writes them. */
  output?: string;
  /** Steady ones: after the first, and one more that settles memory. */
  runs: number;
  /** More options for `compileTrainStep`. */
  stepOptions?: Record<string, unknown>;
  /** Writes a trace of every kernel to a file that begins so. */
  profilePrefix?: string;
}

/** What `part: "step"` gives. */
export interface StepResult {
  /** Graph, gradients, lowering and session, up to the first run. */
  createSeconds: number;
  /** Of that, inside ONNX Runtime. */
  sessionSeconds: number;
  firstSeconds: number;
  seconds: number[];
  /** Time that the processors worked, of all threads together: other programs are not in it. */
  cpuSeconds: number[];
  /** Of `seconds`, inside ONNX Runtime. */
  onnxSeconds: number[];
  /** Before each step, the first one included. */
  losses: number[];
  peakBytes: number;
}

/** What `part: "inference"` gives: seconds of each, measured in turns. */
export interface InferenceResult {
  base: number[];
  adapted: number[];
  /** Of `base`, as in {@link StepResult}. */
  baseCpuSeconds: number[];
  /** Indicator and router alone. */
  route: number[];
  peakBytes: number;
}

/** What `part: "train"` gives: the trainer's loop over drawn batches, with its log. */
export interface TrainResult {
  steps: number;
  seconds: number;
  onnxSeconds: number;
  peakBytes: number;
}

const STEPS_TO_SETTLE = 3;

const task = JSON.parse(process.argv[2]!) as ModelTask | MachineTask;
if (task.part === "machine") sayResult(await measureMachine(task));
else sayResult(await measureModel(task));

async function measureModel(task: ModelTask): Promise<object> {
  const times = new OnnxTimes();
  sayPhase("load");
  const loaded = await UNet2DConditionModel.fromPretrained(task.model, { subfolder: "unet", dtype: task.dtype });
  const runtime: CompileOptions = { threads: task.threads, profilePrefix: task.profilePrefix };
  const model = new UNet2DConditionModel(loaded.config, loaded.weights, runtime);
  const { config, batch, adapters } = await readStepInputs(task.inputs);
  const fera = new FeRAModel(model, config);
  fera.loadStateDict(adapters);
  if (task.part === "inference") return measureInference(task, model, fera, batch);
  const [batchSize, , height, width] = batch.latents.shape as [number, number, number, number];
  const tokens = batch.encoderHiddenStates.shape[1]!;
  sayPhase("create");
  let step: Awaited<ReturnType<FeRAModel["compileTrainStep"]>> | undefined;
  const optimizer = new AdamW({ lr: 1e-4 });
  const createSeconds = await seconds(async () => {
    step = await fera.compileTrainStep({ batchSize, height, width, tokens, optimizer, ...task.stepOptions });
  });
  if (task.part === "gradients") {
    sayPhase("gradients");
    const { gradients } = await step!.gradients(batch);
    await writeSafetensors(task.output!, gradients);
    await step!.release();
    return {};
  }
  if (task.part === "train") return measureTrainer(task, step!, optimizer, batch, times);

  sayPhase("first step");
  const losses: number[] = [];
  const run = async () => {
    losses.push((await step!.run(batch)).loss);
  };
  const firstSeconds = await seconds(run);
  sayPhase("settling step");
  await run();
  sayPhase("steps");
  const all: number[] = [];
  const cpuSeconds: number[] = [];
  for (let i = 0; i < task.runs; i++) {
    const before = process.cpuUsage();
    all.push(await seconds(run));
    const { user, system } = process.cpuUsage(before);
    cpuSeconds.push((user + system) / 1e6);
  }
  await times.finish(task.runs + 2);
  await step!.release();
  const [sessionSeconds = 0] = times.create;
  const result: StepResult = {
    createSeconds,
    sessionSeconds,
    firstSeconds,
    seconds: all,
    cpuSeconds,
    onnxSeconds: times.run.slice(2),
    losses,
    peakBytes: ownPeakBytes(),
  };
  return result;
}

async function measureInference(
  task: ModelTask,
  model: UNet2DConditionModel,
  fera: FeRAModel,
  batch: Parameters<UNet2DConditionModel["predict"]>[0],
): Promise<InferenceResult> {
  const work = {
    base: () => model.predict(batch),
    adapted: () => fera.predict(batch),
    route: () => fera.route(batch.latents),
  };
  const result: InferenceResult = { base: [], adapted: [], baseCpuSeconds: [], route: [], peakBytes: 0 };
  sayPhase("create");
  for (const run of Object.values(work)) await run();
  sayPhase("steps");
  for (let i = 0; i < task.runs; i++) {
    for (const [name, run] of Object.entries(work)) {
      const before = process.cpuUsage();
      result[name as keyof typeof work].push(await seconds(run));
      const { user, system } = process.cpuUsage(before);
      if (name === "base") result.baseCpuSeconds.push((user + system) / 1e6);
    }
  }
  await fera.release();
  await model.release();
  return { ...result, peakBytes: ownPeakBytes() };
}

/** The trainer as users run it, on random data: order, dropout, noise, optimizer, average and log are all in it. */
async function measureTrainer(
  task: ModelTask,
  trainable: Awaited<ReturnType<FeRAModel["compileTrainStep"]>>,
  optimizer: AdamW,
  batch: Awaited<ReturnType<typeof readStepInputs>>["batch"],
  times: OnnxTimes,
): Promise<TrainResult> {
  const generator = new Generator(2);
  const examples = 64;
  const [batchSize, ...latentShape] = batch.latents.shape as [number, ...number[]];
  const textShape = batch.encoderHiddenStates.shape.slice(1);
  const output = await mkdtemp(join(tmpdir(), "fera-bench-"));
  const endedAt: number[] = [];
  sayPhase("steps");
  try {
    const trainer = new Trainer({
      trainable,
      batches: new DiffusionBatches(
        {
          latents: randn([examples, ...latentShape], { generator }),
          conditioning: { encoderHiddenStates: randn([examples, ...textShape], { generator }) },
          empty: { encoderHiddenStates: randn([1, ...textShape], { generator }) },
        },
        { batchSize, captionDropout: 0.1, objective: createObjective({ beta_schedule: "scaled_linear" }), generator },
      ),
      optimizer,
      steps: task.runs + STEPS_TO_SETTLE,
      output,
      maxGradientNorm: 1,
      average: new ParameterAverage(trainable.parameters, 0.99),
      onStep: () => {
        endedAt.push(performance.now());
      },
    });
    await trainer.run();
  } finally {
    await rm(output, { recursive: true, force: true });
  }
  await times.finish(task.runs + STEPS_TO_SETTLE);
  await trainable.release();
  return {
    steps: task.runs,
    seconds: (endedAt.at(-1)! - endedAt[STEPS_TO_SETTLE - 1]!) / 1000,
    onnxSeconds: times.run.slice(STEPS_TO_SETTLE).reduce((sum, value) => sum + value, 0),
    peakBytes: ownPeakBytes(),
  };
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}
