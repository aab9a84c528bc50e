// The step's floating-point operations, counted from the very graph that is run, and the least time that they take at the
// best rates this machine reaches through ONNX Runtime.

import { type FeRAConfig, FeRAModel } from "../src/fera/index.js";
import type { Graph, Node, Value } from "../src/graph/index.js";
import type { UNet2DConditionModel, UNetShape } from "../src/models/unet-2d-condition.js";
import { backend } from "../src/runtime/backend.js";
import { registerBackend } from "../src/runtime/index.js";

/** Floating-point operations by what they compute; a multiply and an add count as two. */
export interface Flops {
  /** Kernels larger than 1×1, forward and backward. */
  convolution: number;
  /** Linear layers, experts and 1×1 convolutions, forward and backward. */
  linear: number;
  /** The products inside attention, forward and backward. */
  attention: number;
  total: number;
}

/**
 * Counts a graph's matrix products and convolutions. Everything else (norms, activations, sums, softmax) counts nothing,
 * and neither does the recomputation of attention probabilities in the backward pass: the count is a lower bound.
 */
export function countFlops(graph: Graph): Flops {
  const flops: Flops = { convolution: 0, linear: 0, attention: 0, total: 0 };
  for (const node of reachableNodes(graph)) {
    const [family, count] = flopsOf(node);
    flops[family] += count;
    flops.total += count;
  }
  return flops;
}

/** Seconds that the operations take at the given rates, in GFLOP/s. */
export function floorSeconds(flops: Flops, rates: { gemmGflops: number; convGflops: number }): number {
  const products = flops.linear + flops.attention;
  return flops.convolution / (rates.convGflops * 1e9) + products / (rates.gemmGflops * 1e9);
}

/**
 * Largest total of values that are alive at once when the nodes run in creation order, without weights, in bytes.
 *
 * A reshape shares its input's memory; outputs of the graph stay to the end. ONNX Runtime's own scratch memory is not in it.
 */
export function liveBytes(graph: Graph): number {
  const nodes = reachableNodes(graph);
  const owner = new Map<Value, Value>();
  const ownerOf = (value: Value): Value => owner.get(value) ?? value;
  const uses = new Map<Value, number>();
  for (const node of nodes) {
    for (const input of node.inputs) if (input) uses.set(ownerOf(input), (uses.get(ownerOf(input)) ?? 0) + 1);
    const [x] = node.inputs;
    if ((node.op === "Reshape" || node.op === "StopGradient") && x) owner.set(node.outputs[0]!, ownerOf(x));
  }
  for (const value of graph.outputs.values()) uses.set(ownerOf(value), Number.POSITIVE_INFINITY);
  let live = 0;
  let most = 0;
  for (const node of nodes) {
    const made = node.outputs.filter((output) => ownerOf(output) === output);
    for (const output of made) if (uses.has(output)) live += 4 * output.size;
    most = Math.max(most, live);
    for (const input of node.inputs) {
      if (!input) continue;
      const held = ownerOf(input);
      const left = uses.get(held)! - 1;
      uses.set(held, left);
      if (left === 0 && held.source.kind === "node") live -= 4 * held.size;
    }
  }
  return most;
}

/** The graph of FeRA's whole step, as `compileTrainStep` builds it; nothing is loaded into ONNX Runtime. */
export function stepGraph(model: UNet2DConditionModel, config: FeRAConfig, shape: UNetShape): Promise<Graph> {
  return captureGraph(() => new FeRAModel(model, config).compileTrainStep(shape));
}

/** The graph that `work` compiles. */
async function captureGraph(work: () => Promise<unknown>): Promise<Graph> {
  const platform = backend();
  let graph: Graph | undefined;
  registerBackend({
    devices: async () => ["cpu"],
    create: async ({ outputs }) => {
      graph = [...outputs.values()][0]?.graph;
      return { run: async () => ({}), release: async () => {} };
    },
  });
  try {
    await work();
  } finally {
    registerBackend(platform);
  }
  if (!graph) throw new Error("captureGraph: nothing was compiled.");
  return graph;
}

function reachableNodes(graph: Graph): Node[] {
  const reached = new Set<Node>();
  const stack = [...graph.outputs.values()];
  while (stack.length > 0) {
    const { source } = stack.pop()!;
    if (source.kind !== "node" || reached.has(source.node)) continue;
    reached.add(source.node);
    for (const input of source.node.inputs) if (input) stack.push(input);
  }
  return graph.nodes.filter((node) => reached.has(node));
}

/** `[…, K]` by `[…, K]`: output size times K, twice. */
function flopsOf(node: Node): readonly ["convolution" | "linear" | "attention", number] {
  const [a, b] = node.inputs as [Value, Value];
  const [y] = node.outputs as [Value];
  switch (node.op) {
    case "Linear":
      return ["linear", 2 * y.size * a.shape.at(-1)!];
    case "MatMul": {
      const { transposeA } = (node as Node<"MatMul">).attributes;
      return ["linear", 2 * y.size * a.shape.at(transposeA ? -2 : -1)!];
    }
    case "Conv":
      return convolutionFlops(y, b.shape);
    case "ConvInputGradient":
      return convolutionFlops(a, b.shape);
    case "ConvWeightGradient":
      return convolutionFlops(a, y.shape);
    case "Attention":
      return ["attention", 2 * attentionProduct(a, b)];
    case "AttentionGradient":
      // dO·vᵀ, dS·k, dSᵀ·q and Pᵀ·dO.
      return ["attention", 4 * attentionProduct(a, b)];
    default:
      return ["linear", 0];
  }
}

/** @param output - `[B, Cout, H, W]`. @param weight - `[Cout, Cin, kH, kW]`. */
function convolutionFlops(output: Value, weight: readonly number[]): readonly ["convolution" | "linear", number] {
  const [, channels, height, width] = weight as [number, number, number, number];
  return [height * width === 1 ? "linear" : "convolution", 2 * output.size * channels * height * width];
}

/** One product of queries `[B, Q, F]` with keys `[B, K, F]`. */
const attentionProduct = (queries: Value, keys: Value): number => 2 * queries.size * keys.shape[1]!;
