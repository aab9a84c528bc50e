// The program that measures one published size, a process each: `measured-size.ts TASK`, TASK as JSON. Started by sizes.ts.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FeRAConfig, FeRAModel } from "../src/adapters/index.js";
import type { Denoiser, DenoiserShape } from "../src/diffusion/index.js";
import * as ops from "../src/graph/index.js";
import { Graph } from "../src/graph/index.js";
import { AdamW, FlowMatchEulerDiscreteScheduler, Generator, randn } from "../src/index.js";
import type { WeightType } from "../src/models/index.js";
import { loadSafetensors } from "../src/models/weight-loading.js";
import { ModelWeights } from "../src/nn/index.js";
import { compile } from "../src/runtime/index.js";
import { FileStorage } from "../src/storage/file-storage.js";
import { encodeSafetensors, writeSafetensors } from "../src/storage/index.js";
import { openSafetensorsIn } from "../src/storage/safetensors-source.js";
import { type Tensor, tensor } from "../src/tensor/tensor.js";
import { sayPhase, sayResult } from "./measured-process.js";
import { ownPeakBytes } from "./memory.js";
import { drawAdapters, drawInputs, type ModelInputs } from "./model-inputs.js";
import { OnnxTimes } from "./onnx-times.js";
import { REAL_MODELS, type RealModelName } from "./real-models.js";

/** What is measured of one way to keep frozen weights. */
export interface SizeTask {
  /** A training step of FeRA, a sampling step, or loading alone, which makes copies that are made once. */
  part: "train" | "sample" | "load";
  model: RealModelName;
  /** Of the pipeline. */
  folder: string;
  dtype: WeightType;
  shape: DenoiserShape;
  threads: number;
  /** After the first. */
  runs: number;
  rank: number;
  experts: number;
  feclWeight: number;
  gradientCheckpointing: boolean;
  /** Writes the prediction, or the gradients of the first step. */
  output?: string;
  /** Writes a trace of every kernel to a file that begins so. */
  profilePrefix?: string;
}

/** How fast products of integers are here, one layer at a time. */
export interface Int8RateTask {
  part: "int8-rate";
  threads: number;
  rows: number;
  features: number;
}

/** Times of a step. */
export interface SizeResult {
  loadSeconds: number;
  /** Graph, gradients, lowering and session. */
  createSeconds: number;
  /** Of that, inside ONNX Runtime. */
  sessionSeconds: number;
  firstSeconds: number;
  seconds: number[];
  losses: number[];
  peakBytes: number;
}

const task = JSON.parse(process.argv[2]!) as SizeTask | Int8RateTask;
sayResult(await (task.part === "int8-rate" ? int8Rate(task) : measureSize(task)));

async function measureSize(task: SizeTask): Promise<object> {
  const times = new OnnxTimes();
  const real = REAL_MODELS[task.model];
  sayPhase("load");
  let model!: Denoiser;
  const loadSeconds = await seconds(async () => {
    const { threads, dtype, profilePrefix } = task;
    const options = { subfolder: real.subfolder, dtype, threads };
    model = await real.load(task.folder, options);
    Object.assign(model.runtime, profilePrefix && { profilePrefix });
  });
  if (task.part === "load") return { loadSeconds };
  const inputs = drawInputs(model, task.shape, new Generator(1));
  const result = await (task.part === "train" ? train : sample)(task, model, inputs);
  await times.finish(result.seconds.length + 1);
  const [sessionSeconds = 0] = times.create;
  // A prediction compiles when it is first made.
  const createSeconds = "createSeconds" in result ? result.createSeconds : result.firstSeconds - times.run[0]!;
  const firstSeconds = "createSeconds" in result ? result.firstSeconds : times.run[0]!;
  return { loadSeconds, ...result, createSeconds, sessionSeconds, firstSeconds, peakBytes: ownPeakBytes() };
}

async function train(task: SizeTask, model: Denoiser, inputs: ModelInputs) {
  const { rank, experts: numExperts, feclWeight, gradientCheckpointing } = task;
  const { latentHeight: height, latentWidth: width, batchSize, tokens } = task.shape;
  const fera = new FeRAModel(model, new FeRAConfig({ rank, numExperts, feclWeight }));
  const generator = new Generator(3);
  fera.loadStateDict(drawAdapters(fera, generator));
  sayPhase("create");
  let step!: Awaited<ReturnType<FeRAModel["compileTrainStep"]>>;
  const optimizer = new AdamW({ lr: 1e-4 });
  const createSeconds = await seconds(async () => {
    step = await fera.compileTrainStep({ batchSize, height, width, tokens, optimizer, gradientCheckpointing });
  });
  const batch = { ...inputs, target: randn(inputs.latents.shape, { generator }) };
  sayPhase("first step");
  const losses: number[] = [];
  const firstSeconds = await seconds(async () => {
    if (task.output === undefined) {
      losses.push((await step.run(batch)).loss);
    } else {
      const { gradients, loss } = await step.gradients(batch);
      losses.push(loss);
      await writeSafetensors(task.output, gradients);
    }
  });
  sayPhase("steps");
  const all: number[] = [];
  for (let i = 0; i < task.runs; i++) {
    all.push(
      await seconds(async () => {
        losses.push((await step.run(batch)).loss);
      }),
    );
  }
  await step.release();
  return { createSeconds, firstSeconds, seconds: all, losses };
}

async function sample(task: SizeTask, model: Denoiser, inputs: ModelInputs) {
  const scheduler = new FlowMatchEulerDiscreteScheduler({ shift: 3 });
  scheduler.setTimesteps(task.runs + 1);
  let latents = inputs.latents as Tensor<"float32">;
  const denoise = async (timestep: number) => {
    const flow = await model.predict({ ...inputs, latents, timesteps: tensor([timestep]) });
    latents = scheduler.step(flow, timestep, latents).prevSample;
    return flow;
  };
  const [first, ...others] = scheduler.timesteps as [number, ...number[]];
  sayPhase("first step");
  const firstSeconds = await seconds(async () => {
    const flow = await denoise(first);
    if (task.output !== undefined) await writeSafetensors(task.output, new Map([["flow", flow]]));
  });
  sayPhase("steps");
  const all: number[] = [];
  for (const timestep of others) all.push(await seconds(() => denoise(timestep)));
  await model.release();
  return { firstSeconds, seconds: all, losses: [] };
}

/** GFLOP/s of the library's product with a weight of integers, what is multiplied with it being rounded included. */
async function int8Rate({ threads, rows, features }: Int8RateTask): Promise<{ int8Gflops: number }> {
  sayPhase("machine");
  const folder = await mkdtemp(join(tmpdir(), "fera-int8-"));
  process.env.FERA_CACHE = join(folder, "cache");
  try {
    const generator = new Generator(0);
    const name = "layer.weight";
    const weight = randn([features, features], { generator });
    await writeFile(join(folder, "layer.safetensors"), encodeSafetensors({ [name]: weight }));
    const storage = new FileStorage(folder);
    const opened = await openSafetensorsIn(storage, "layer.safetensors");
    const { weights } = await loadSafetensors(storage, opened, { dtype: "int8" });
    const source = new ModelWeights(
      new Map([...weights].map(([name, value]) => [name, "tensor" in value ? value : { ...value, dtype: "float32" }])),
      folder,
    );
    const graph = new Graph();
    const x = graph.input("x", "float32", [rows, features]);
    graph.output("mean", ops.reduceMean(ops.linear(x, source.parameter(graph, name, weight.shape))));
    const compiled = await compile(graph, { threads });
    const feeds = { x: randn(x.shape, { generator }) };
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 8; i++) best = Math.min(best, await seconds(() => compiled.run(feeds)));
    await compiled.release();
    return { int8Gflops: (2 * rows * features ** 2) / best / 1e9 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}
