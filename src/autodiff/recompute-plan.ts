// Decides what the backward pass keeps of the forward pass and what it recomputes: a plan over segments of the
// forward nodes, found from the graph alone.

import { type Node, operationsOf, reachableNodes, type Value } from "../graph/index.js";
import type { DType } from "../tensor/tensor.js";

/** What a trial run of the gradient rules told about one forward node. */
export interface Visit {
  node: Node;
  /** Nodes that its rule made, as a range of positions in the graph. */
  first: number;
  end: number;
}

/** Which forward values to keep, and in which groups to recompute the others. */
export interface RecomputePlan {
  /** Forward nodes of each segment, in creation order. The last segment is kept whole and not listed. */
  segments: readonly (readonly Node[])[];
  /** Values that later segments need, or that are expensive for their size: never recomputed. */
  kept: ReadonlySet<Value>;
}

/** Part of what the gradients need of the forward pass that is spent on keeping the values that cost most per byte. */
const EXPENSIVE_FRACTION = 0.2;
const ITEM_BYTES: Record<DType, number> = { float32: 4, float16: 2, int64: 8, int32: 4, bool: 1 };
/** How exactly the smallest peak is searched for. */
const PEAK_TOLERANCE = 0.01;

/** A value as the plan sees it: positions count forward nodes that are recomputed or have a gradient. */
interface Item {
  bytes: number;
  birth: number;
  /** Last position that reads it in the recomputed forward pass, or in a gradient rule. */
  lastUse: number;
  /** Whether gradient rules read it. */
  needed: boolean;
}

/** What each possible segment costs, by the indices of two candidates: it starts at the one, the next at the other. */
interface SegmentCosts {
  /** Candidate positions, rising, from 0 to the number of nodes. */
  candidates: readonly number[];
  /** Bytes that stay until the gradients of the segment are made. */
  kept: (from: number, to: number) => number;
  /** Bytes that making the segment's gradients takes. */
  working: (from: number, to: number) => number;
}

/**
 * Chooses what to keep.
 *
 * 1. The gradients of a trial walk say which forward values are needed. Those with the most operations per byte
 *    (convolutions, attention over many tokens) are kept, up to a fifth of what all needed values take.
 * 2. The forward nodes in creation order are cut into segments; what crosses a cut is kept. While the gradients of a
 *    segment are made, memory holds what was kept before it (K), what its own rules need, and the largest workspace of
 *    a rule of it (together M). Cuts are chosen so that the largest K + M is smallest.
 *
 * @param visits - Of the trial walk, in its order.
 * @param results - The trial's gradients.
 * @param forwardCount - Number of forward nodes; the trial's come after them.
 */
export function planRecomputation(
  visits: readonly Visit[],
  results: readonly Value[],
  forwardCount: number,
): RecomputePlan {
  const graph = results[0]!.graph;
  const backward = new Set(reachableNodes(graph, results).filter(({ index }) => index >= forwardCount));
  const readBy = new Map<Value, Node[]>();
  const workspace = new Map<Node, number>();
  for (const { node, first, end } of visits) {
    let bytes = 0;
    for (const made of graph.nodes.slice(first, end)) {
      if (!backward.has(made)) continue;
      if (made.op !== "Reshape") for (const output of made.outputs) bytes += bytesOf(output);
      for (const input of made.inputs) {
        if (input?.source.kind !== "node" || input.source.node.index >= forwardCount) continue;
        readBy.set(input, [...(readBy.get(input) ?? []), node]);
      }
    }
    workspace.set(node, bytes);
  }
  const needed = [...readBy.keys()];
  const expensive = expensiveValues(needed);
  const recomputed = ancestors(needed, expensive);
  const involved = new Set(recomputed);
  for (const { node } of visits) involved.add(node);
  for (const { source } of expensive) if (source.kind === "node") involved.add(source.node);
  const nodes = graph.nodes.slice(0, forwardCount).filter((node) => involved.has(node));
  const position = new Map(nodes.map((node, i) => [node, i]));

  const items = new Map<Value, Item>();
  const use = (value: Value | undefined, at: number, needed: boolean): void => {
    if (value?.source.kind !== "node") return;
    const birth = position.get(value.source.node);
    if (birth === undefined) return;
    const item = items.get(value) ?? { bytes: bytesOf(value), birth, lastUse: birth, needed: false };
    item.lastUse = Math.max(item.lastUse, at);
    item.needed ||= needed;
    items.set(value, item);
  };
  for (const node of recomputed) for (const input of node.inputs) use(input, position.get(node)!, false);
  for (const [value, readers] of readBy) for (const reader of readers) use(value, position.get(reader)!, true);

  const costs = segmentCosts(
    nodes.map((node) => workspace.get(node) ?? 0),
    [...items].map(([value, item]) => ({ ...item, expensive: expensive.has(value) })),
  );
  const cuts = smallestPeak(costs);
  const segments = cuts.slice(0, -1).map((start, i) => nodes.slice(start, cuts[i + 1]));
  const kept = new Set(expensive);
  for (const [value, { birth, lastUse }] of items) {
    if (cuts.some((cut) => birth < cut && cut <= lastUse)) kept.add(value);
  }
  return { segments, kept };
}

/** Those with the most operations per byte of all that would be recomputed, within {@link EXPENSIVE_FRACTION}. */
function expensiveValues(needed: readonly Value[]): Set<Value> {
  let budget = EXPENSIVE_FRACTION * needed.reduce((sum, value) => sum + bytesOf(value), 0);
  const candidates = [...ancestors(needed, new Set())].map((node) => {
    const value = node.outputs[0]!;
    return { value, intensity: operationsOf(node) / bytesOf(value) };
  });
  candidates.sort((a, b) => b.intensity - a.intensity);
  const expensive = new Set<Value>();
  for (const { value, intensity } of candidates) {
    // Operations elementwise: never worth their memory.
    if (intensity <= 1 || bytesOf(value) > budget) break;
    budget -= bytesOf(value);
    expensive.add(value);
  }
  return expensive;
}

/** The nodes that make the given values from inputs, weights and the values at which the search stops. */
function ancestors(values: readonly Value[], stop: ReadonlySet<Value>): Set<Node> {
  const reached = new Set<Node>();
  const stack = [...values];
  while (stack.length > 0) {
    const value = stack.pop()!;
    if (value.source.kind !== "node" || stop.has(value) || reached.has(value.source.node)) continue;
    reached.add(value.source.node);
    for (const input of value.source.node.inputs) if (input) stack.push(input);
  }
  return reached;
}

function segmentCosts(workspace: readonly number[], items: readonly (Item & { expensive: boolean })[]): SegmentCosts {
  const count = workspace.length;
  const crossing = new Array<number>(count + 1).fill(0);
  for (const { birth, lastUse, bytes } of items) {
    for (let cut = birth + 1; cut <= lastUse; cut++) crossing[cut]! += bytes;
  }
  // Between the blocks of a model less is alive than within them; in a plain chain it is everywhere the same.
  const candidates = [0];
  for (let cut = 1; cut < count; cut++) {
    if (crossing[cut]! <= crossing[cut - 1]! && crossing[cut]! <= crossing[cut + 1]!) candidates.push(cut);
  }
  candidates.push(count);

  const indexBefore = (position: number): number => {
    let index = 0;
    while (candidates[index + 1]! <= position) index++;
    return index;
  };
  const size = candidates.length;
  const table = () => Array.from({ length: size }, () => new Float64Array(size));
  const [kept, working] = [table(), table()];
  const births = items.map((item) => ({ ...item, at: indexBefore(item.birth) }));
  const largest = candidates.map(() => 0);
  workspace.forEach((bytes, position) => {
    const at = indexBefore(position);
    largest[at] = Math.max(largest[at]!, bytes);
  });
  for (let to = 1; to < size; to++) {
    const keptAt = new Float64Array(size);
    const neededAt = new Float64Array(size);
    for (const { at, lastUse, bytes, needed, expensive } of births) {
      if (at >= to) continue;
      if (expensive || lastUse >= candidates[to]!) keptAt[at]! += bytes;
      if (needed) neededAt[at]! += bytes;
    }
    let [keptSum, neededSum, most] = [0, 0, 0];
    for (let from = to - 1; from >= 0; from--) {
      keptSum += keptAt[from]!;
      neededSum += neededAt[from]!;
      most = Math.max(most, largest[from]!);
      kept[from]![to] = keptSum;
      working[from]![to] = neededSum + most;
    }
  }
  return { candidates, kept: (from, to) => kept[from]![to]!, working: (from, to) => working[from]![to]! };
}

/** Starts of the segments of which the largest kept-before + working is smallest: bisection over that limit. */
function smallestPeak(costs: SegmentCosts): number[] {
  const end = costs.candidates.length - 1;
  let high = costs.working(0, end);
  let low = 0;
  let best = [0];
  while (high - low > PEAK_TOLERANCE * high) {
    const limit = (low + high) / 2;
    const cuts = cutsWithin(costs, limit);
    if (cuts) {
      best = cuts;
      high = limit;
    } else low = limit;
  }
  return best;
}

/** Starts of segments that stay within a limit and keep the least, or undefined where there are none. */
function cutsWithin({ candidates, kept, working }: SegmentCosts, limit: number): number[] | undefined {
  const end = candidates.length - 1;
  const keptUpTo = new Array<number>(end + 1).fill(Number.POSITIVE_INFINITY);
  const previous = new Array<number>(end + 1).fill(-1);
  keptUpTo[0] = 0;
  for (let to = 1; to <= end; to++) {
    for (let from = 0; from < to; from++) {
      if (keptUpTo[from]! + working(from, to) > limit) continue;
      const total = keptUpTo[from]! + kept(from, to);
      if (total >= keptUpTo[to]!) continue;
      keptUpTo[to] = total;
      previous[to] = from;
    }
  }
  if (previous[end] === -1) return undefined;
  const starts: number[] = [];
  for (let at = previous[end]!; at >= 0; at = previous[at]!) starts.unshift(candidates[at]!);
  return starts;
}

function bytesOf({ size, dtype }: Value): number {
  return size * ITEM_BYTES[dtype];
}
