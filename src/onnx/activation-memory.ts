// How much memory a model's intermediate values take at their peak, worked out from its execution order.

import { fromBinary } from "@bufbuild/protobuf";
import { type ModelProto, ModelProtoSchema, type NodeProto } from "onnx-buf";
import { Arena, type ArenaEvent } from "./arena.js";
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
  /** What is made and given back, in order. */
  events: readonly ArenaEvent[];
}

/** Runs after which the arena's memory has settled: a later run finds the free pieces in another order. */
const RUNS_TO_SETTLE = 3;

/** Kernels that write over an input that nothing needs afterwards, where the planner sees that the shapes agree. */
const IN_PLACE = new Set("Add Sub Mul Div Neg Exp Log Sqrt Sigmoid Tanh Relu Reciprocal QuickGelu Gelu".split(" "));
/** Kernels whose output is their first input's memory. */
const ALIAS = new Set(["Reshape", "Identity"]);

interface Buffer {
  id: number;
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
    model.graph!.initializer.map(({ name }) => [name, { id: -1, bytes: 0, uses: Number.POSITIVE_INFINITY }]),
  );
  const liveBytes: number[] = [];
  const events: ArenaEvent[] = [];
  let live = 0;
  const release = (buffer: Buffer, count: number): void => {
    buffer.uses -= count;
    if (buffer.uses !== 0) return;
    live -= buffer.bytes;
    events.push({ kind: "free", id: buffer.id });
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
        const buffer = { id: events.length, bytes: size, uses: own };
        live += size;
        events.push({ kind: "allocate", id: buffer.id, bytes: size });
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
  // Results are given back once they have been taken.
  const kept = new Set([...buffers.values()].filter(({ id, uses }) => id >= 0 && uses > 0).map(({ id }) => id));
  for (const id of kept) events.push({ kind: "free", id });
  const names = order.map((i) => nodes[i]!.name);
  return { peakBytes, peakStep: liveBytes.indexOf(peakBytes), order: names, liveBytes, events };
}

/** What a loaded model holds of memory on the CPU, once it has run a few times. */
export interface ModelMemory {
  /** Intermediate values and results, with the free pieces that lie between them in ONNX Runtime's arena. */
  arenaBytes: number;
  /** Weights that stay in their files: mapped, and resident once they have been read. A part of one counts as another weight. */
  weightBytes: number;
  /** Weights and constants inside the model. */
  embeddedBytes: number;
}

/**
 * Works out what a model will hold of memory, without loading it.
 *
 * @param bytes - A model as {@link lower} makes it for the CPU.
 */
export function modelMemory(bytes: Uint8Array): ModelMemory {
  const { events } = activationMemory(bytes);
  const arena = new Arena();
  for (let run = 0; run < RUNS_TO_SETTLE; run++) arena.follow(events);
  let [weightBytes, embeddedBytes] = [0, 0];
  for (const { externalData, rawData } of fromBinary(ModelProtoSchema, bytes).graph!.initializer) {
    embeddedBytes += rawData.length;
    weightBytes += Number(externalData.find(({ key }) => key === "length")?.value ?? 0);
  }
  return { arenaBytes: arena.residentBytes, weightBytes, embeddedBytes };
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
