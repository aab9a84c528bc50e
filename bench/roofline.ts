// The step's floating-point operations, counted from the very graph that is run, and the least time that they take at the
// best rates this machine reaches through ONNX Runtime.

import { type FeRAConfig, FeRAModel } from "../src/adapters/index.js";
import { Graph, type Node, operationsOf, reachableNodes, type Value } from "../src/graph/index.js";
import type { UNet2DConditionModel, UNetShape } from "../src/models/unet-2d-condition/unet-2d-condition.js";
import { buildTrainStep } from "../src/training/step-graph.js";

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
  for (const node of reachableNodes(graph, graph.outputs.values())) {
    const [family, count] = flopsOf(node);
    flops[family] += count;
    flops.total += count;
  }
  return flops;
}

/** Seconds that the operations take at the given rates, in GFLOP/s. */
export function rooflineSeconds(flops: Flops, rates: { gemmGflops: number; convGflops: number }): number {
  const products = flops.linear + flops.attention;
  return flops.convolution / (rates.convGflops * 1e9) + products / (rates.gemmGflops * 1e9);
}

/**
 * Largest total of values that are alive at once when the nodes run in creation order, without weights, in bytes.
 *
 * A reshape shares its input's memory; outputs of the graph stay to the end. ONNX Runtime's own scratch memory is not in it.
 */
export function liveBytes(graph: Graph): number {
  const nodes = reachableNodes(graph, graph.outputs.values());
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
export function stepGraph(model: UNet2DConditionModel, config: FeRAConfig, shape: UNetShape): Graph {
  const graph = new Graph();
  buildTrainStep(graph, { model, adapter: new FeRAModel(model, config).adapter, shape });
  return graph;
}

/** What a node computes, and its operations that no other way to compute it could do without. */
function flopsOf(node: Node): readonly ["convolution" | "linear" | "attention", number] {
  const [, weight] = node.inputs;
  switch (node.op) {
    case "Linear":
    case "MatMul":
      return ["linear", operationsOf(node)];
    case "Conv":
    case "ConvInputGradient":
      return [convolutionFamily(weight!.shape), operationsOf(node)];
    case "ConvWeightGradient":
      return [convolutionFamily(node.outputs[0]!.shape), operationsOf(node)];
    case "Attention":
      return ["attention", operationsOf(node)];
    case "AttentionGradient":
      // dO·vᵀ, dS·k, dSᵀ·q and Pᵀ·dO; the fifth product makes the probabilities again.
      return ["attention", (operationsOf(node) * 4) / 5];
    default:
      return ["linear", 0];
  }
}

/** @param weight - `[Cout, Cin, kH, kW]`. */
const convolutionFamily = ([, , height, width]: readonly number[]): "convolution" | "linear" =>
  height! * width! === 1 ? "linear" : "convolution";
