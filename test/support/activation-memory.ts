// How much memory a model's intermediate values take at their peak, worked out from its execution order.

import { fromBinary } from "@bufbuild/protobuf";
import { type ModelProto, ModelProtoSchema, type NodeProto } from "onnx-buf";
import { executionOrder } from "./execution-order.js";
import { bytesOf, tensorSizes } from "./onnx-shapes.js";

/** The result of {@link activationMemory}. */
export interface ActivationMemory {
  /** Largest sum of live intermediate values and results, in bytes. */
  peakBytes: number;
  /** Position in `order` of the node that runs at the peak. */
  peakStep: number;
  /** Names of the nodes, in execution order. */
  order: readonly string[];
  /** Live bytes while each of them runs. */
  liveBytes: readonly number[];
}

/** Kernels that write over an input that nothing needs afterwards, where the planner sees that the shapes agree. */
const IN_PLACE = new Set("Add Sub Mul Div Neg Exp Log Sqrt Sigmoid Tanh Relu Reciprocal QuickGelu Gelu".split(" "));
/** Kernels whose output is their first input's memory. */
const ALIAS = new Set(["Reshape", "Identity"]);

interface Buffer {
  bytes: number;
  /** How many inputs of nodes that have not run yet lie in it; results of the graph are held for ever. */
  uses: number;
}

/**
 * Estimates the peak of a model's activations on ONNX Runtime's CPU provider.
 *
 * A value lives from the node that makes it to the last one that takes it. Counted neither are inputs and weights, nor
 * what kernels allocate for themselves (a convolution's unfolded image), nor the allocator's waste.
 *
 * @param bytes - A model as {@link lower} makes it.
 */
export function activationMemory(bytes: Uint8Array): ActivationMemory {
  const model = fromBinary(ModelProtoSchema, bytes);
  const nodes = model.graph!.node;
  const sizes = tensorSizes(model);
  const order = executionOrder(nodes);
  const seen = seenShapes(model);
  const uses = new Map<string, number>();
  for (const { input } of nodes) for (const name of input) uses.set(name, (uses.get(name) ?? 0) + 1);
  for (const { name } of model.graph!.output) uses.set(name, Number.POSITIVE_INFINITY);

  // Weights are not counted, and what shows them under another shape is no copy.
  const buffers = new Map<string, Buffer>(
    model.graph!.initializer.map(({ name }) => [name, { bytes: 0, uses: Number.POSITIVE_INFINITY }]),
  );
  const liveBytes: number[] = [];
  let live = 0;
  const release = (buffer: Buffer, count: number): void => {
    buffer.uses -= count;
    if (buffer.uses === 0) live -= buffer.bytes;
  };
  for (const index of order) {
    const node = nodes[index]!;
    for (const name of node.output) {
      if (name === "") continue;
      const size = bytesOf(sizes.get(name)!);
      const own = uses.get(name) ?? 0;
      const shared = sharedBuffer(node, buffers, size, seen);
      if (shared) {
        shared.uses += own;
        buffers.set(name, shared);
      } else {
        const buffer = { bytes: size, uses: own };
        live += size;
        buffers.set(name, buffer);
      }
    }
    liveBytes.push(live);
    for (const name of node.output) {
      const buffer = buffers.get(name);
      if (buffer?.uses === 0) release(buffer, 0);
    }
    for (const name of node.input) {
      const buffer = buffers.get(name);
      if (buffer) release(buffer, 1);
    }
  }
  const peakBytes = liveBytes.reduce((a, b) => Math.max(a, b), 0);
  return { peakBytes, peakStep: liveBytes.indexOf(peakBytes), order: order.map((i) => nodes[i]!.name), liveBytes };
}

/** The buffer of an input that the node's first output takes over. */
function sharedBuffer(
  node: NodeProto,
  buffers: ReadonlyMap<string, Buffer>,
  bytes: number,
  seen: ReadonlySet<string>,
): Buffer | undefined {
  if (ALIAS.has(node.opType)) return buffers.get(node.input[0]!);
  if (!IN_PLACE.has(node.opType) || !seen.has(node.output[0]!)) return undefined;
  const count = (name: string) => node.input.filter((input) => input === name).length;
  for (const name of node.input.slice(0, 2)) {
    const buffer = buffers.get(name);
    if (buffer && seen.has(name) && buffer.bytes === bytes && buffer.uses === count(name)) return buffer;
  }
  return undefined;
}

/** Names of values whose shapes ONNX Runtime's shape inference knows; see `hidesShapes` of {@link OnnxModelBuilder}. */
function seenShapes({ graph }: ModelProto): Set<string> {
  const constants = new Set(graph!.initializer.map(({ name }) => name));
  const seen = new Set([
    ...constants,
    ...[...graph!.input, ...graph!.output, ...graph!.valueInfo].map(({ name }) => name),
  ]);
  for (const { opType, input, output } of graph!.node) {
    const sources = opType === "Reshape" ? input.slice(1) : input.filter((name) => name !== "");
    const isSeen = opType === "Reshape" ? constants.has(sources[0]!) : sources.every((name) => seen.has(name));
    if (isSeen) for (const name of output) seen.add(name);
  }
  return seen;
}
