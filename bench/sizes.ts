// Do models of published sizes fit: how long does a training step of FeRA take, or one sampling step, how much memory does it
// need, and how far is it off, for every way to keep the frozen weights? With random weights: see random-checkpoint.ts.

import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { FeRAConfig, FeRAModel } from "../src/adapters/index.js";
import { formatTable } from "../src/cli/format.js";
import { Graph } from "../src/graph/index.js";
import type { WeightType } from "../src/models/index.js";
import { sizeOf } from "../src/tensor/tensor.js";
import { buildTrainStep } from "../src/training/step-graph.js";
import { compareGradients, type GradientDifference, readGradients } from "./gradient-cosine.js";
import { bestRates, type MachineCase, machineRates } from "./machine.js";
import { type Measured, measureProgram } from "./measured-process.js";
import type { Int8RateTask, SizeResult, SizeTask } from "./measured-size.js";
import { type PhaseMemory, peakAnonymousBytes } from "./memory.js";
import { environment, warnOfLoad } from "./prepared-step.js";
import { writeRandomCheckpoint } from "./random-checkpoint.js";
import { REAL_MODELS, type RealModelName, realParameters, shapeOf, withoutWeights } from "./real-models.js";
import { countFlops, type Flops, rooflineSeconds } from "./roofline.js";
import { BENCH_FOLDER } from "./sd15-weights.js";
import { formatMemory, formatPercent, formatRatio, formatSeconds } from "./statistics.js";

/** What to measure. */
export interface SizeOptions {
  model: RealModelName;
  /** In turns; what others are off is counted from the first. */
  dtypes: readonly WeightType[];
  /** A training step, or one of sampling. */
  part: "train" | "sample";
  pixels: number;
  /** Of the text; default: the model's usual. */
  tokens?: number | undefined;
  rank: number;
  experts: number;
  feclWeight: number;
  gradientCheckpointing: boolean;
  /** Steps after the first. */
  runs: number;
  threads: number;
  /** Compares predictions, or gradients, with those of the first dtype. */
  compare: boolean;
  profilePrefix?: string | undefined;
}

/** One way to keep frozen weights. */
export interface SizeCost extends SizeResult, Partial<GradientDifference> {
  /** The fastest. */
  stepSeconds: number;
  anonymousBytes: number | undefined;
  memory: Record<string, PhaseMemory>;
  /** Counted operations over the measured rate, in floats; and with linear layers at the rate of integers. */
  boundSeconds: number;
  int8BoundSeconds: number;
  /** Of the prediction, relative L2; of gradients see `gradientError`. */
  error?: number;
}

/** What was measured; the names are those of the JSON file. */
export interface SizeReport extends SizeOptions {
  parameters: number;
  adaptedLayers: number;
  trained: number;
  flops: Flops;
  gemmGflops: number;
  int8Gflops: number;
  costs: Partial<Record<WeightType, SizeCost>>;
  environment: ReturnType<typeof environment>;
}

/** Layers of 3000 features over 1500 tokens, and a 3×3 convolution. */
const CASES: readonly MachineCase[] = [
  { kind: "gemm", size: 1536, from: 3072, to: 3072 },
  { kind: "gemm", size: 2048, from: 2048, to: 2048 },
  { kind: "conv", size: 32, from: 640, to: 640 },
];
const INT8_CASE = { rows: 1536, features: 3072 };

const folderOf = (model: RealModelName) => join(BENCH_FOLDER, "sizes", model);

/** Writes the checkpoint and the copies that other dtypes need; they are used as long as they are there. */
export async function prepareSize(options: SizeOptions): Promise<void> {
  await writeRandomCheckpoint(REAL_MODELS[options.model], folderOf(options.model));
  for (const dtype of options.dtypes) {
    const { result } = await run<{ loadSeconds: number }>({ ...taskOf(options, dtype), part: "load" });
    console.error(`${options.model}, ${dtype}: loaded in ${formatSeconds(result.loadSeconds)}`);
  }
}

/** Removes the checkpoint and its copies. */
export const removeSize = (model: RealModelName): Promise<void> =>
  rm(folderOf(model), { recursive: true, force: true });

/** Measures every dtype in a process of its own. */
export async function measureSize(options: SizeOptions): Promise<SizeReport> {
  await prepareSize(options);
  warnOfLoad();
  const { model, threads, rank, experts: numExperts, feclWeight } = options;
  const real = REAL_MODELS[model];
  const before = await machineRates(threads, { cases: CASES });
  const graph = new Graph();
  const denoiser = withoutWeights(real);
  const adapter = new FeRAModel(denoiser, new FeRAConfig({ rank, numExperts, feclWeight }));
  const { shape } = taskOf(options, "auto");
  if (options.part === "train") {
    buildTrainStep(graph, { model: denoiser, adapter: adapter.adapter, shape });
  } else {
    graph.output("flow", denoiser.build(denoiser.frozenScope(graph), denoiser.declareInputs(graph, shape)));
  }
  const flops = countFlops(graph);
  const temporary = await mkdtemp(join(BENCH_FOLDER, "sizes-"));
  try {
    const measured = new Map<WeightType, Measured<SizeResult>>();
    for (const dtype of options.dtypes) {
      console.error(`${model}, ${dtype} …`);
      const output = options.compare ? join(temporary, `${dtype}.safetensors`) : undefined;
      const one = await run<SizeResult>({ ...taskOf(options, dtype), ...(output && { output }) });
      measured.set(dtype, one);
      const { firstSeconds, seconds, peakBytes } = one.result;
      console.error(`  ${[firstSeconds, ...seconds].map(formatSeconds).join(", ")}; ${formatMemory(peakBytes)}`);
    }
    const machine = bestRates(before, await machineRates(threads, { cases: CASES }));
    const task: Int8RateTask = { part: "int8-rate", threads, ...INT8_CASE };
    const { int8Gflops } = (await measureProgram<{ int8Gflops: number }>("measured-size.ts", task)).result;
    const costs: SizeReport["costs"] = {};
    for (const [dtype, { result, memory }] of measured) {
      const rest = { ...flops, linear: 0, convolution: 0 };
      costs[dtype] = {
        ...result,
        stepSeconds: Math.min(...(result.seconds.length > 0 ? result.seconds : [result.firstSeconds])),
        anonymousBytes: peakAnonymousBytes(memory),
        memory,
        boundSeconds: rooflineSeconds(flops, machine),
        int8BoundSeconds: rooflineSeconds(rest, machine) + (flops.linear + flops.convolution) / (int8Gflops * 1e9),
        ...(options.compare && (await differences(temporary, dtype, options))),
      };
    }
    return {
      ...options,
      parameters: realParameters(real).reduce((sum, { shape }) => sum + sizeOf(shape), 0),
      adaptedLayers: adapter.layers.length,
      trained: [...adapter.parameters.values()].reduce((sum, { size }) => sum + size, 0),
      flops,
      gemmGflops: machine.gemmGflops,
      int8Gflops,
      costs,
      environment: environment(),
    };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The report as lines for the terminal. */
export function sizeTable(report: SizeReport): string[] {
  const costs = Object.entries(report.costs) as [WeightType, SizeCost][];
  const shown = (value: number | undefined, format: (value: number) => string) =>
    value === undefined ? "" : format(value);
  const rows = costs.map(([dtype, cost]) => {
    const bound = dtype === "int8" ? cost.int8BoundSeconds : cost.boundSeconds;
    return [
      dtype,
      formatSeconds(cost.createSeconds),
      formatSeconds(cost.firstSeconds),
      cost.seconds.length > 0 ? formatSeconds(cost.stepSeconds) : "",
      formatSeconds(bound),
      formatRatio(cost.stepSeconds / bound),
      formatMemory(cost.anonymousBytes),
      formatMemory(cost.peakBytes),
      shown(cost.error ?? cost.gradientError, formatPercent),
      shown(cost.gradientCosine, (value) => value.toFixed(4)),
    ];
  });
  const head = ["weights", "compiled in", "first", "next", "operations / rate", "over it", "anonymous", "peak"];
  return [
    `${report.model}: ${(report.parameters / 1e9).toFixed(2)} billion weights, ${report.pixels} pixels, ` +
      `${(report.flops.total / 1e12).toPrecision(3)} TFLOP a step; ${report.gemmGflops.toFixed(0)} GFLOP/s in floats, ` +
      `${report.int8Gflops.toFixed(0)} in integers`,
    ...formatTable([[...head, "error", "worst cosine"], ...rows]),
  ];
}

function taskOf(options: SizeOptions, dtype: WeightType): SizeTask {
  const { part, model, threads, runs, rank, experts, feclWeight, gradientCheckpointing, profilePrefix } = options;
  const shape = shapeOf(options.pixels, REAL_MODELS[model]);
  return {
    ...{ part, model, folder: folderOf(model), dtype, threads, runs, rank, experts, feclWeight, gradientCheckpointing },
    shape: { ...shape, tokens: options.tokens ?? shape.tokens },
    ...(profilePrefix !== undefined && { profilePrefix }),
  };
}

const run = <Result>(task: SizeTask) =>
  measureProgram<Result>("measured-size.ts", task, { env: { FERA_CACHE: join(task.folder, "cache") } });

async function differences(folder: string, dtype: WeightType, { dtypes, part }: SizeOptions) {
  if (dtype === dtypes[0]) return {};
  const [exact, own] = await Promise.all(
    [dtypes[0]!, dtype].map((each) => readGradients(join(folder, `${each}.safetensors`))),
  );
  if (part === "train") return compareGradients(own!, exact!);
  return { error: relativeError(own!.get("flow")!, exact!.get("flow")!) };
}

function relativeError(values: Float32Array, exact: Float32Array): number {
  let [sum, norm] = [0, 0];
  for (let i = 0; i < exact.length; i++) {
    sum += (values[i]! - exact[i]!) ** 2;
    norm += exact[i]! ** 2;
  }
  return Math.sqrt(sum / norm);
}
