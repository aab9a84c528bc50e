// Recomputes forward values for the backward pass: clones of a segment's nodes that cannot run before the gradients
// that come into the segment.

import { after, type Node, type Value } from "../graph/index.js";
import type { RecomputePlan } from "./recompute-plan.js";

/** Gives each forward node as a gradient rule is to see it, for a walk from the last node to the first. */
export class Recomputation {
  private readonly segmentOf = new Map<Node, number>();
  private readonly kept: ReadonlySet<Value>;
  private readonly segments: RecomputePlan["segments"];
  private entered = -1;
  private views = new Map<Node, Node>();

  constructor({ segments, kept }: RecomputePlan) {
    this.segments = segments;
    this.kept = kept;
    segments.forEach((nodes, segment) => {
      for (const node of nodes) this.segmentOf.set(node, segment);
    });
  }

  /**
   * @param node - The node that the walk has come to.
   * @param contributions - Gradients so far: on entering a segment, those of everything that later segments read.
   */
  view(node: Node, contributions: ReadonlyMap<Value, Value>): Node {
    const segment = this.segmentOf.get(node);
    if (segment === undefined) return node;
    if (segment !== this.entered) {
      this.entered = segment;
      const { graph } = node.outputs[0]!;
      this.views = graph.inPhase("recompute", () => cloneSegment(this.segments[segment]!, this.kept, contributions));
    }
    return this.views.get(node)!;
  }
}

/**
 * Clones the nodes of a segment; clones that no rule uses are left out when the graph is lowered.
 *
 * A value from outside (or kept) is taken only once the segment's incoming gradients exist. As such a value is another
 * one than the original, no clone equals an original node, and the graph does not merge them.
 */
function cloneSegment(
  nodes: readonly Node[],
  kept: ReadonlySet<Value>,
  contributions: ReadonlyMap<Value, Value>,
): Map<Node, Node> {
  const incoming = nodes.flatMap(({ outputs }) => outputs.flatMap((output) => contributions.get(output) ?? []));
  const given = [...new Set(incoming)];
  const mapped = new Map<Value, Value>();
  const late = (value: Value): Value => {
    let result = mapped.get(value);
    if (!result) {
      result = value.source.kind === "node" ? after(value, given) : value;
      mapped.set(value, result);
    }
    return result;
  };
  const recomputed = (node: Node): Node => {
    const { graph } = node.outputs[0]!;
    const inputs = node.inputs.map((input) => input && late(input));
    if (!node.outputs.every((output) => kept.has(output))) {
      const clone = graph.node(node.op, madeLate(inputs, given), node.attributes, node.outputs);
      node.outputs.forEach((output, i) => {
        if (!kept.has(output)) mapped.set(output, clone.outputs[i]!);
      });
    }
    return { ...node, inputs, outputs: node.outputs.map(late) };
  };
  return new Map(
    nodes.map((node) => [node, node.outputs[0]!.graph.inLayer(node.layer, () => recomputed(node))] as const),
  );
}

/** A clone that takes only inputs and weights would run early: its smallest input then waits as well. */
function madeLate(inputs: readonly (Value | undefined)[], given: readonly Value[]): (Value | undefined)[] {
  const isLate = inputs.some((input) => input?.source.kind === "node");
  if (isLate) return [...inputs];
  const smallest = inputs.reduce((a, b) => (a && b ? (b.size < a.size ? b : a) : (a ?? b)));
  return inputs.map((input) => (input && input === smallest ? after(input, given) : input));
}
