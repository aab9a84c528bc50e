// Turns a Graph into an ONNX model for one kind of device, in the node order that keeps memory low.

import type { Graph, Node, Value } from "../graph/graph.js";
import { reachableNodes } from "../graph/node-cost.js";
import { commonFolder, rootedFolder } from "./common-folder.js";
import { orderedUnits } from "./cpu/shared-convolutions.js";
import { lowerConvPair } from "./lower-convolution.js";
import { fileWeight, type LoweringContext, type Target } from "./lowering-context.js";
import { LOWERINGS } from "./lowerings.js";
import { OnnxModelBuilder } from "./model-builder.js";

/** A graph ready for ONNX Runtime. */
export interface OnnxModel {
  bytes: Uint8Array;
  /** Folder that the external weights' locations are relative to; undefined where all weights are embedded. */
  weightsFolder: string | undefined;
  inputs: ReadonlyMap<string, Value>;
  outputs: ReadonlyMap<string, Value>;
}

/**
 * Lowers a graph.
 *
 * ONNX Runtime orders nodes by a depth-first search from the graph's leaves, the highest file index first. Forward
 * nodes therefore come first, then backward nodes in the order they were made, and all leaves (nodes whose results
 * are only graph outputs) last, in reverse: the leaf wanted first has the highest index.
 *
 * Nodes are named after where they come from: `down_blocks.0.attentions.0.proj_in/FusedMatMul` of a forward pass,
 * `gradient/LAYER/OPERATOR`, `recompute/LAYER/OPERATOR`.
 */
export function lower(graph: Graph, target: Target): OnnxModel {
  const nodes = reachableNodes(graph, graph.outputs.values());
  const consumed = new Set<Value>();
  for (const node of nodes) for (const input of node.inputs) if (input) consumed.add(input);
  const used = new Set([...consumed, ...graph.outputs.values()]);

  const paths = new Set<string>();
  for (const value of used) if (value.source.kind === "file") paths.add(value.source.range.path);
  const folder = commonFolder([...paths]);
  const builder = new OnnxModelBuilder({
    // ONNX Runtime refuses absolute locations.
    fileLocation: (path) => path.slice((folder ?? "").length + 1),
    hidesShapes: target === "cpu",
  });

  const names = new Map<Value, string>();
  let phase = "";
  const madeInPhase = new Map<string, string>();
  const outputNames = chooseOutputNames(graph);
  const context: LoweringContext = {
    target,
    builder,
    isUsed: (value) => used.has(value),
    isOutput: (value) => outputNames.has(value),
    nameFor: (value) => outputNames.get(value) ?? `v${value.id}`,
    name: (value) => nameOf(value, names, context),
    named: (value, name) => names.set(value, name),
    oncePerPhase: (key, make) => {
      const inPhase = `${phase}:${key}`;
      let known = madeInPhase.get(inPhase);
      if (known === undefined) {
        known = make();
        madeInPhase.set(inPhase, known);
      }
      return known;
    },
  };
  for (const [name, value] of graph.inputs) {
    names.set(value, name);
    builder.input(name, value.dtype, value.shape);
  }

  const isLeaf = (node: Node): boolean => !node.outputs.some((output) => consumed.has(output));
  const leaves = nodes.filter(isLeaf).reverse();
  const inner = nodes.filter((node) => !isLeaf(node));
  for (const unit of orderedUnits(inner, target)) {
    // Two convolutions that are computed together are named after the first of them.
    builder.origin = originOf(unit[0]);
    phase = unit[0].phase;
    if (unit.length === 2) lowerConvPair(unit, context);
    else LOWERINGS[unit[0].op](unit[0] as never, context);
  }
  for (const node of leaves) {
    builder.origin = originOf(node);
    phase = node.phase;
    LOWERINGS[node.op](node as never, context);
  }
  builder.origin = "";

  for (const [name, value] of graph.outputs) {
    const actual = context.name(value);
    if (actual !== name) builder.emit("Identity", [actual], { outputs: [name] });
    builder.output(name, value.dtype, value.shape);
  }
  return {
    bytes: builder.toBytes(),
    weightsFolder: folder === undefined ? undefined : rootedFolder(folder),
    inputs: graph.inputs,
    outputs: graph.outputs,
  };
}

/** Phase and layer of a node, as its ONNX nodes are named. */
const originOf = ({ phase, layer }: Node): string => (phase && layer ? `${phase}/${layer}` : phase || layer);

function nameOf(value: Value, names: Map<Value, string>, context: LoweringContext): string {
  const known = names.get(value);
  if (known !== undefined) return known;
  const { source } = value;
  if (source.kind === "file") return fileWeight(context, source.name, value.shape, source.range);
  if (source.kind !== "constant") throw new Error(`lower: ${value} is used before it is made.`);
  const name = context.builder.constant(source.tensor);
  names.set(value, name);
  return name;
}

/** The first output name of each computed value becomes its own name, so that no copy is needed. */
function chooseOutputNames(graph: Graph): Map<Value, string> {
  const names = new Map<Value, string>();
  for (const [name, value] of graph.outputs) {
    if (value.source.kind === "node" && value.source.node.op !== "StopGradient" && !names.has(value))
      names.set(value, name);
  }
  return names;
}
