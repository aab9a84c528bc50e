// What a frozen layer costs and how far it is off, kind by kind, for every way to keep its weight: forward and the gradient of
// its input, alone on one thread.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gradients } from "../src/autodiff/index.js";
import { formatTable } from "../src/cli/format.js";
import * as ops from "../src/graph/index.js";
import { Graph, type Value } from "../src/graph/index.js";
import type { WeightType } from "../src/models/index.js";
import { loadSafetensors } from "../src/models/weight-loading.js";
import { ModelWeights } from "../src/nn/index.js";
import { type CompiledGraph, compile } from "../src/runtime/index.js";
import { FileStorage } from "../src/storage/file-storage.js";
import { encodeSafetensors } from "../src/storage/index.js";
import { openSafetensorsIn } from "../src/storage/safetensors-source.js";
import { Generator, randn } from "../src/tensor/random.js";
import type { Tensor } from "../src/tensor/tensor.js";
import { formatRatio, formatSeconds, median } from "./statistics.js";

/** A layer of Stable Diffusion 1.5 at 64×64 latents. */
interface LayerKind {
  name: string;
  weight: readonly number[];
  input: readonly number[];
}

/** One way to keep its weight, in one direction. */
export interface LayerCost {
  layer: string;
  direction: "forward" | "gradient";
  dtype: WeightType;
  /** Time that the processor worked; other programs are not in it. */
  cpuSeconds: number;
  /** Relative to float32's result. */
  error: number;
}

const KINDS: readonly LayerKind[] = [
  { name: "linear 320→320, 4096 rows", weight: [320, 320], input: [1, 4096, 320] },
  { name: "linear 1280→320, 4096 rows", weight: [320, 1280], input: [1, 4096, 1280] },
  { name: "linear 640→640, 1024 rows", weight: [640, 640], input: [1, 1024, 640] },
  { name: "linear 640→5120, 1024 rows", weight: [5120, 640], input: [1, 1024, 640] },
  { name: "linear 1280→1280, 256 rows", weight: [1280, 1280], input: [1, 256, 1280] },
  { name: "linear 768→320, 77 rows", weight: [320, 768], input: [1, 77, 768] },
  { name: "1×1 convolution 320, 64×64", weight: [320, 320, 1, 1], input: [1, 320, 64, 64] },
  { name: "3×3 convolution 320, 64×64", weight: [320, 320, 3, 3], input: [1, 320, 64, 64] },
  { name: "3×3 convolution 640, 32×32", weight: [640, 640, 3, 3], input: [1, 640, 32, 32] },
  { name: "3×3 convolution 1280, 16×16", weight: [1280, 1280, 3, 3], input: [1, 1280, 16, 16] },
  { name: "3×3 convolution 1280, 8×8", weight: [1280, 1280, 3, 3], input: [1, 1280, 8, 8] },
];

const NAME = "layer.weight";

/** Measures in this process. @param rounds - Runs of each, taken in turns. */
export async function measureLayers(dtypes: readonly WeightType[], rounds: number): Promise<LayerCost[]> {
  const costs: LayerCost[] = [];
  const folder = await mkdtemp(join(tmpdir(), "fera-layers-"));
  process.env.FERA_CACHE = join(folder, "cache");
  try {
    for (const kind of KINDS) {
      for (const direction of ["forward", "gradient"] as const) {
        costs.push(...(await measureKind(folder, kind, direction, dtypes, rounds)));
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return costs;
}

async function measureKind(
  folder: string,
  kind: LayerKind,
  direction: LayerCost["direction"],
  dtypes: readonly WeightType[],
  rounds: number,
): Promise<LayerCost[]> {
  const generator = new Generator(1);
  const scale = 1 / Math.sqrt(kind.weight.slice(1).reduce((a, b) => a * b));
  const weight = randn(kind.weight, { generator });
  weight.data.forEach((value, i) => {
    weight.data[i] = value * scale;
  });
  await writeFile(join(folder, "layer.safetensors"), encodeSafetensors({ [NAME]: weight }));
  const storage = new FileStorage(folder);
  const prepared = new Map<WeightType, { compiled: CompiledGraph; samples: number[]; result?: Tensor<"float32"> }>();
  let feeds: Record<string, Tensor> = {};
  for (const dtype of dtypes) {
    const opened = await openSafetensorsIn(storage, "layer.safetensors");
    const { weights } = await loadSafetensors(storage, opened, { dtype });
    const source = new ModelWeights(
      new Map([...weights].map(([name, value]) => [name, "tensor" in value ? value : { ...value, dtype: "float32" }])),
      folder,
    );
    const graph = new Graph();
    feeds = build(graph, kind, direction, source.parameter(graph, NAME, kind.weight));
    prepared.set(dtype, { compiled: await compile(graph, { threads: 1 }), samples: [] });
  }
  for (let i = 0; i <= rounds; i++) {
    for (const each of prepared.values()) {
      const before = process.cpuUsage();
      const { y } = await each.compiled.run(feeds);
      const { user, system } = process.cpuUsage(before);
      // The first runs bring memory in.
      if (i > 0) each.samples.push((user + system) / 1e6);
      each.result = y as Tensor<"float32">;
    }
  }
  const exact = prepared.get("float32")?.result;
  const costs: LayerCost[] = [];
  for (const [dtype, { compiled, samples, result }] of prepared) {
    await compiled.release();
    const error = exact ? difference(result!.data, exact.data) : Number.NaN;
    costs.push({ layer: kind.name, direction, dtype, cpuSeconds: median(samples), error });
  }
  return costs;
}

/** The layer, or the gradient of its input, with the output `y`. @returns What is fed. */
function build(
  graph: Graph,
  { input, weight: shape }: LayerKind,
  direction: LayerCost["direction"],
  weight: Value,
): Record<string, Tensor> {
  const x = graph.input("x", "float32", input);
  const y = apply(x, weight, shape);
  const generator = new Generator(2);
  if (direction === "forward") {
    graph.output("y", y);
    return { x: randn(input, { generator }) };
  }
  const dy = graph.input("dy", "float32", y.shape);
  graph.output("y", gradients(ops.reduceSum(ops.mul(y, dy)), [x])[0]!);
  return { x: randn(input, { generator }), dy: randn(y.shape, { generator }) };
}

function apply(x: Value, weight: Value, shape: readonly number[]): Value {
  if (shape.length === 2) return ops.linear(x, weight);
  if (shape[2] !== 1) return ops.conv(x, weight, undefined, { padding: 1 });
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const product = ops.matMul(ops.reshape(weight, shape.slice(0, 2)), ops.reshape(x, [batch, channels, height * width]));
  return ops.reshape(product, [batch, shape[0]!, height, width]);
}

function difference(values: Float32Array, exact: Float32Array): number {
  let [sum, norm] = [0, 0];
  for (let i = 0; i < exact.length; i++) {
    sum += (values[i]! - exact[i]!) ** 2;
    norm += exact[i]! ** 2;
  }
  return Math.sqrt(sum / norm);
}

/** One line per layer and direction: float32's time, and of every other way its share of that and its error. */
export function layerTable(costs: readonly LayerCost[]): string[] {
  const dtypes = [...new Set(costs.map(({ dtype }) => dtype))];
  const rows = costs
    .filter(({ dtype }) => dtype === dtypes[0])
    .map((first) => {
      const others = dtypes.slice(1).map((dtype) => {
        const cost = costs.find(
          (each) => each.dtype === dtype && each.layer === first.layer && each.direction === first.direction,
        )!;
        return `${formatRatio(cost.cpuSeconds / first.cpuSeconds)}, ${cost.error.toExponential(1)}`;
      });
      return [first.layer, first.direction, formatSeconds(first.cpuSeconds), ...others];
    });
  return formatTable([["layer", "", dtypes[0]!, ...dtypes.slice(1).map((dtype) => `${dtype}: time, error`)], ...rows]);
}
