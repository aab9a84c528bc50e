// A program that computes on WebGPU and on the CPU and prints, one JSON line each, how far apart the results are.
// The driver's environment variables must be set before its process starts.
//
// Arguments: `golden`, or else small inputs are taken; names of folders under test/reference.

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import "../../src/storage/node.js";
import { FeRAConfig } from "../../src/adapters/fera/fera-config.js";
import { FeRAModel } from "../../src/adapters/fera/fera-model.js";
import { Graph } from "../../src/graph/index.js";
import { UNet2DConditionModel, unetFeeds } from "../../src/models/unet-2d-condition/unet-2d-condition.js";
import { compile, type Device } from "../../src/runtime/index.js";
import { readSafetensors } from "../../src/storage/index.js";
import { AVERAGE, buildDeviceStep, PARAMETERS, stateInput } from "../../src/training/step-graph.js";
import "../../src/runtime/node.js";
import { createObjective } from "../../src/diffusion/index.js";
import { Generator, randn } from "../../src/tensor/random.js";
import { flatValues, type Tensor, tensor, zeros } from "../../src/tensor/tensor.js";
import { ParameterAverage } from "../../src/training/average.js";
import { DiffusionBatches } from "../../src/training/diffusion-batches.js";
import { AdamW, createOptimizer, type ElementwiseOptimizer } from "../../src/training/optimizers/index.js";
import { type StepReport, Trainer } from "../../src/training/trainer.js";
import { relativeError } from "../support/relative-error.js";

/** What each line says. */
export interface Check {
  what: string;
  /** Relative L2 error, or how many operators fell back. */
  error: number;
  limit: number;
}

const OUTPUT_LIMIT = 2e-4;
const GRADIENT_LIMIT = 2e-3;
const LOSS_LIMIT = 1e-4;
const TRAINED_LIMIT = 2e-3;
/** The first model named trains as long as the reference did, the others long enough for state to be fed back. */
const STEPS = 8;
const FEWER_STEPS = 2;
const TRAINER_STEPS = 4;
const CHECKPOINT_EVERY = 3;
/** Latents so small that a software driver computes a step in about a second. */
const SIZE = 8;

const report = (what: string, error: number, limit: number): void => {
  console.log(JSON.stringify({ what, error, limit } satisfies Check));
};
const flattened = (state: ReadonlyMap<string, Tensor>): number[] =>
  [...state]
    .filter(({ 1: { dtype } }) => dtype === "float32")
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, { data }]) => Array.from(data, Number));
const errorBetween = (a: Tensor, b: Tensor | undefined): number =>
  relativeError(a.data as Float32Array, b!.data as Float32Array);

/** The golden batch, or one of the same kinds of inputs with small latents. */
function batchOf(expected: ReadonlyMap<string, Tensor>, golden: boolean) {
  const generator = new Generator(0);
  const given = (key: string): Tensor => {
    const value = expected.get(key)!;
    if (golden) return value;
    // The first sample, of latents the first rows and columns.
    const shape = value.shape.length === 4 ? [1, value.shape[1]!, SIZE, SIZE] : [1, ...value.shape.slice(1)];
    if (shape.length === 4) return randn(shape, { generator });
    return tensor(value.data.slice(0, value.size / value.shape[0]!) as Float32Array, shape, value.dtype as "float32");
  };
  return {
    latents: given("latents"),
    timesteps: given("timesteps"),
    encoderHiddenStates: given("encoder_hidden_states"),
    ...(expected.has("text_embeds")
      ? { addedConditions: { textEmbeds: given("text_embeds"), timeIds: given("time_ids") } }
      : {}),
    target: given("target") as Tensor<"float32">,
  };
}

async function open(name: string, device: Device): Promise<FeRAModel> {
  const unet = await UNet2DConditionModel.fromPretrained(`test/reference/${name}`, { subfolder: "unet", device });
  const fera = new FeRAModel(unet, FeRAConfig.reference());
  await fera.loadAdapters(`test/reference/${name}/adapters_initial.safetensors`);
  return fera;
}

async function compareModel(name: string, golden: boolean, steps: number): Promise<void> {
  const { tensors: expected } = await readSafetensors(`test/reference/${name}/expected.safetensors`);
  const batch = batchOf(expected, golden);
  const [batchSize, , height, width] = batch.latents.shape as [number, number, number, number];
  const shape = { batchSize, height, width, tokens: batch.encoderHiddenStates.shape[1]! };
  const [gpu, cpu] = [await open(name, "webgpu"), await open(name, "cpu")];
  const base = golden ? expected.get("base_output") : await cpu.predict({ ...batch, adapters: false });
  report(`${name} base output`, errorBetween(await gpu.predict({ ...batch, adapters: false }), base), OUTPUT_LIMIT);
  const adapted = golden ? expected.get("fera_output") : await cpu.predict(batch);
  report(`${name} adapted output`, errorBetween(await gpu.predict(batch), adapted), OUTPUT_LIMIT);

  const optimizers = [new AdamW({ lr: 1e-3 }), new AdamW({ lr: 1e-3 })] as const;
  const step = await gpu.compileTrainStep({ ...shape, optimizer: optimizers[0], gradientClip: 0.1 });
  const host = await cpu.compileTrainStep({ ...shape, optimizer: optimizers[1], gradientClip: 0.1 });
  const { gradients } = await step.gradients(batch);
  const truth = golden ? undefined : (await host.gradients(batch)).gradients;
  const errors = [...gradients].map(([key, value]) =>
    errorBetween(value, truth?.get(key) ?? expected.get(`grad.${key}`)),
  );
  report(`${name} gradients, worst of ${errors.length}`, Math.max(...errors), GRADIENT_LIMIT);

  if (!golden) {
    let worst = 0;
    for (let i = 0; i < steps; i++) {
      const [a, b] = [await step.run(batch), await host.run(batch)];
      worst = Math.max(worst, Math.abs(a.loss - b.loss) / b.loss);
    }
    report(`${name} losses of ${steps} steps`, worst, LOSS_LIMIT);
    const [a, b] = [gpu.stateDict(), cpu.stateDict()];
    report(`${name} adapters after ${steps} steps`, relativeError(flattened(a), flattened(b)), TRAINED_LIMIT);
    const [m, n] = optimizers.map((optimizer) => flattened(optimizer.stateDict())) as [number[], number[]];
    report(`${name} moments after ${steps} steps`, relativeError(m, n), TRAINED_LIMIT);
    const bad = { ...batch, target: tensor(batch.target.data.slice().fill(Number.NaN), batch.target.shape) };
    const refused = await step.run(bad).then(
      () => 1,
      () => 0,
    );
    report(`${name} step not refused`, refused, 1);
    report(`${name} adapters after a refused step`, relativeError(flattened(gpu.stateDict()), flattened(a)), 1e-12);
  }
  for (const { model } of [gpu, cpu]) await model.release();
  for (const released of [step, host, gpu, cpu]) await released.release();
}

/** A short training by the trainer, with average and clipping. */
async function train(name: string, device: Device, output: string) {
  const generator = new Generator(0);
  const fera = await open(name, device);
  const optimizer = new AdamW({ lr: 1e-3 });
  const average = new ParameterAverage(fera.parameters, 0.9);
  const [tokens, features] = [5, (fera.model as UNet2DConditionModel).config.cross_attention_dim];
  const shape = { batchSize: 1, latentHeight: SIZE, latentWidth: SIZE, tokens };
  const step = await fera.compileTrainStep({ ...shape, optimizer, average });
  const data = {
    latents: randn([3, 4, SIZE, SIZE], { generator }),
    conditioning: { encoderHiddenStates: randn([3, tokens, features], { generator }) },
    empty: { encoderHiddenStates: randn([1, tokens, features], { generator }) },
  };
  // The maps themselves: asking the model or the average for theirs would bring the values back.
  const maps = [fera.parameters, average.values];
  const current = () => maps.flatMap(flattened);
  const initial = current();
  const reports: StepReport[] = [];
  let movedAfter = 0;
  const trainer = new Trainer({
    ...{ trainable: step, optimizer, average, output, steps: TRAINER_STEPS, maxGradientNorm: 1e-3 },
    batches: new DiffusionBatches(data, { batchSize: 1, objective: createObjective({}), generator }),
    schedule: "cosine",
    checkpointEvery: CHECKPOINT_EVERY,
    onStep: (report) => {
      reports.push(report);
      if (relativeError(current(), initial) === 0) movedAfter = report.step;
    },
  });
  await trainer.run();
  const [parameters, moments] = [flattened(fera.parameters), flattened(optimizer.stateDict())];
  for (const released of [step, fera.model, fera]) await released.release();
  return { reports, movedAfter, parameters, moments, average: flattened(average.values) };
}

async function compareTrainer(name: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "fera-webgpu-trainer-"));
  try {
    const gpu = await train(name, "webgpu", join(folder, "gpu"));
    const cpu = await train(name, "cpu", join(folder, "cpu"));
    for (const value of ["loss", "gradientNorm", "learningRate"] as const) {
      const [a, b] = [gpu, cpu].map(({ reports }) => reports.map((step) => step[value])) as [number[], number[]];
      report(`${name} trainer, ${value} of ${a.length} steps`, relativeError(a, b), LOSS_LIMIT);
    }
    for (const state of ["parameters", "moments", "average"] as const) {
      report(`${name} trainer, ${state}`, relativeError(gpu[state], cpu[state]), TRAINED_LIMIT);
    }
    report(`${name} trainer, steps until its state moved`, Math.abs(gpu.movedAfter - CHECKPOINT_EVERY), 1);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Counts the operators of a step, the optimizer's included, that run on another provider than WebGPU. */
async function countFallbacks(name: string, optimizer: ElementwiseOptimizer): Promise<void> {
  const { tensors: expected } = await readSafetensors(`test/reference/${name}/expected.safetensors`);
  const { latents, encoderHiddenStates, target, timesteps } = batchOf(expected, false);
  const fera = await open(name, "webgpu");
  const folder = await mkdtemp(join(tmpdir(), "fera-webgpu-"));
  try {
    const graph = new Graph();
    const shape = { batchSize: 1, latentHeight: SIZE, latentWidth: SIZE, tokens: encoderHiddenStates.shape[1]! };
    const average = new ParameterAverage(fera.parameters, 0.9);
    const parts = { model: fera.model, adapter: fera.adapter, shape };
    const { packing, scalars, ioBinding } = buildDeviceStep(graph, parts, { average, optimizer });
    const compiled = await compile(graph, { device: "webgpu", profilePrefix: join(folder, "trace"), ioBinding });
    const parameters = packing.pack(flatValues(fera.parameters));
    const state = Object.fromEntries(optimizer.slotNames.map((slot) => [stateInput(slot), zeros([packing.size])]));
    await compiled.write({ [PARAMETERS]: parameters, ...state, [AVERAGE]: parameters });
    const numbers = { ...optimizer.coefficients(), maxGradientNorm: 1, averageDecay: average.nextDecay };
    const feeds = { ...unetFeeds({ latents, timesteps, encoderHiddenStates }), target };
    await compiled.run({ ...feeds, scalars: scalars.pack(numbers) });
    await compiled.release();
    const [file] = await readdir(folder);
    const trace = JSON.parse(await readFile(join(folder, file!), "utf8")) as {
      args?: { provider?: string; op_name?: string };
    }[];
    const ran = trace.flatMap(({ args }) => (args?.provider === undefined ? [] : [args]));
    const fallen = ran.filter(({ provider }) => provider !== "WebGpuExecutionProvider");
    for (const { provider, op_name } of fallen) console.error(`${op_name} ran on ${provider}`);
    report(`${name} operators with ${optimizer.name} on WebGPU`, ran.length > 500 ? 0 : 1, 1);
    report(`${name} operators with ${optimizer.name} on other providers`, fallen.length, 1);
  } finally {
    await rm(folder, { recursive: true });
    await fera.model.release();
  }
}

const [kind, ...names] = process.argv.slice(2);
for (const [i, name] of names.entries()) await compareModel(name, kind === "golden", i === 0 ? STEPS : FEWER_STEPS);
if (kind !== "golden") {
  await compareTrainer(names[0]!);
  for (const optimizer of ["adamw", "lion", "schedule-free"] as const)
    await countFallbacks(names[0]!, createOptimizer(optimizer));
}
