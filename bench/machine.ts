// The machine: the best rates of matrix products and 3×3 convolutions that ONNX Runtime reaches on it, over the shapes of
// Stable Diffusion 1.5 and over the session settings that could matter.

import type { InferenceSession } from "onnxruntime-common";
import * as ops from "../src/graph/index.js";
import { Graph, type Value } from "../src/graph/index.js";
import { lower } from "../src/onnx/index.js";
import { onnxRuntime as ort } from "../src/runtime/onnxruntime.js";
import { Generator, randn } from "../src/tensor/random.js";
import { measurePart, sayPhase } from "./measured-process.js";
import { countFlops } from "./roofline.js";

/** Two layers in turn, there and back, so that a chain of any length can be built: from → to → from. */
export interface MachineCase {
  kind: "gemm" | "conv";
  /** Rows of the product, or side of the square image. */
  size: number;
  from: number;
  to: number;
}

/** What the process that measures is told. */
export interface MachineTask {
  part: "machine";
  threads: number;
  cases: readonly MachineCase[];
  /** Shortest time that a case is repeated for. */
  secondsPerCase: number;
}

/** GFLOP/s of a case under each setting. */
export interface MachineRate extends MachineCase {
  /** The library's own session settings. */
  plain: number;
  /** ONNX Runtime's whole optimizer and prepacked weights. */
  optimized: number;
}

/** What the machine can do. */
export interface MachineResult {
  gemmGflops: number;
  convGflops: number;
  rates: MachineRate[];
}

/** Shapes of Stable Diffusion 1.5 at 64×64 latents: linear layers, feed-forwards, convolutions of every level. */
export const MACHINE_CASES: readonly MachineCase[] = [
  { kind: "gemm", size: 2048, from: 2048, to: 2048 },
  { kind: "gemm", size: 4096, from: 320, to: 320 },
  { kind: "gemm", size: 4096, from: 320, to: 2560 },
  { kind: "gemm", size: 1024, from: 640, to: 5120 },
  { kind: "gemm", size: 256, from: 1280, to: 10240 },
  { kind: "conv", size: 64, from: 320, to: 320 },
  { kind: "conv", size: 64, from: 640, to: 320 },
  { kind: "conv", size: 32, from: 640, to: 640 },
  { kind: "conv", size: 16, from: 1280, to: 1280 },
  { kind: "conv", size: 8, from: 1280, to: 1280 },
];

const CHAIN = 4;

/** Measures in a process of its own. */
export async function machineRates(
  threads: number,
  { cases = MACHINE_CASES, secondsPerCase = 0.5 }: Partial<Pick<MachineTask, "cases" | "secondsPerCase">> = {},
): Promise<MachineResult> {
  const task: MachineTask = { part: "machine", threads, cases, secondsPerCase };
  return (await measurePart<MachineResult>(task)).result;
}

/** The better of two measurements of the same machine, case by case. */
export function bestRates(a: MachineResult, b: MachineResult): MachineResult {
  return summarize(
    a.rates.map((rate, i) => ({
      ...rate,
      plain: Math.max(rate.plain, b.rates[i]!.plain),
      optimized: Math.max(rate.optimized, b.rates[i]!.optimized),
    })),
  );
}

/** Measures in this process. */
export async function measureMachine({ threads, cases, secondsPerCase }: MachineTask): Promise<MachineResult> {
  sayPhase("machine");
  const rates: MachineRate[] = [];
  for (const one of cases) {
    const { graph, x } = chainOf(one);
    const flops = countFlops(graph).total;
    // ONNX Runtime's own convolution: for the CPU the library would transform it.
    const { bytes } = lower(graph, "portable");
    const feeds = { x: new ort.Tensor("float32", randn(x.shape, { generator: new Generator(1) }).data, x.shape) };
    const best = async (options: InferenceSession.SessionOptions) => {
      const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: threads, ...options });
      const seconds = await bestSeconds(() => session.run(feeds), secondsPerCase);
      await session.release();
      return flops / seconds / 1e9;
    };
    rates.push({
      ...one,
      plain: await best({
        graphOptimizationLevel: "disabled",
        enableMemPattern: false,
        extra: { session: { disable_prepacking: "1" } },
      }),
      optimized: await best({ graphOptimizationLevel: "all" }),
    });
  }
  return summarize(rates);
}

function summarize(rates: MachineRate[]): MachineResult {
  const best = (kind: MachineCase["kind"]) =>
    Math.max(0, ...rates.filter((rate) => rate.kind === kind).flatMap(({ plain, optimized }) => [plain, optimized]));
  return { gemmGflops: best("gemm"), convGflops: best("conv"), rates };
}

/** Layers with a single number as their result, so that nothing is copied out. Weights keep the values' scale. */
function chainOf({ kind, size, from, to }: MachineCase): { graph: Graph; x: Value } {
  const graph = new Graph();
  const generator = new Generator(0);
  const weight = (out: number, fanIn: number, kernel: readonly number[]): Value => {
    const drawn = randn([out, fanIn, ...kernel], { generator });
    const std = 1 / Math.sqrt(fanIn * kernel.reduce((product, side) => product * side, 1));
    for (let i = 0; i < drawn.size; i++) drawn.data[i] = drawn.data[i]! * std;
    return graph.constant(drawn);
  };
  const x = graph.input("x", "float32", kind === "gemm" ? [size, from] : [1, from, size, size]);
  const kernel = kind === "gemm" ? [] : [3, 3];
  const [there, back] = [weight(to, from, kernel), weight(from, to, kernel)];
  let y = x;
  for (let i = 0; i < CHAIN; i++) {
    const next = i % 2 === 0 ? there : back;
    y = kind === "gemm" ? ops.linear(y, next) : ops.conv(y, next, undefined, { padding: 1 });
  }
  graph.output("mean", ops.reduceMean(y));
  return { graph, x };
}

async function bestSeconds(run: () => Promise<unknown>, atLeast: number): Promise<number> {
  await run();
  let best = Number.POSITIVE_INFINITY;
  const begin = performance.now();
  for (let i = 0; i < 3 || performance.now() - begin < atLeast * 1000; i++) {
    const startedAt = performance.now();
    await run();
    best = Math.min(best, (performance.now() - startedAt) / 1000);
  }
  return best;
}
