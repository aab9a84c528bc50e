// Which convolutions are computed together, two with the same weight at a time, and in which order all nodes then come.

import type { Node } from "../../graph/graph.js";
import type { Target } from "../lowering-context.js";
import { shareWinograd } from "./winograd.js";

/** Nodes that are written at once: one, or two convolutions with the same weight. */
export type Unit = readonly [Node] | readonly [Node<"Conv">, Node<"Conv">];

/**
 * Groups the nodes and orders the groups so that each comes after all that it depends on.
 *
 * The base pass and the adapted pass of a training step have the same convolutions on different images: taken in pairs,
 * both passes advance side by side, and each weight is read and transformed once for both.
 *
 * @param nodes - In creation order, which is topological.
 */
export function orderedUnits(nodes: readonly Node[], target: Target): Unit[] {
  const partners = findPartners(nodes, target);
  for (;;) {
    const order = tryOrder(nodes, partners);
    if (Array.isArray(order)) return order;
    // One of the two depends on the other.
    partners.delete(partners.get(order)!);
    partners.delete(order);
  }
}

/** Convolutions that only differ in their image, in twos, in creation order. */
function findPartners(nodes: readonly Node[], target: Target): Map<Node, Node> {
  const partners = new Map<Node, Node>();
  const waiting = new Map<string, Node>();
  for (const node of nodes) {
    if (node.op !== "Conv" || !shareWinograd(node as Node<"Conv">, target)) continue;
    const [x, weight, bias] = node.inputs;
    const key = `${weight!.id},${bias?.id},${x!.shape.join("x")}`;
    const first = waiting.get(key);
    if (!first) {
      waiting.set(key, node);
      continue;
    }
    waiting.delete(key);
    partners.set(first, node);
    partners.set(node, first);
  }
  return partners;
}

/** The order, or a node whose partner cannot come with it. */
function tryOrder(nodes: readonly Node[], partners: ReadonlyMap<Node, Node>): Unit[] | Node {
  const units: Unit[] = [];
  const state = new Map<Node, "open" | "done">();
  for (const node of nodes) {
    const stack = [node];
    while (stack.length > 0) {
      const next = stack.at(-1)!;
      if (state.get(next) === "done") {
        stack.pop();
        continue;
      }
      const partner = partners.get(next);
      const members = partner ? [next, partner] : [next];
      const missing = members.flatMap(makers).filter((maker) => state.get(maker) !== "done");
      if (missing.length === 0) {
        members.sort((a, b) => a.index - b.index);
        for (const member of members) state.set(member, "done");
        units.push(members as unknown as Unit);
        stack.pop();
        continue;
      }
      // A node that waits for itself does so through a pair: alone, nodes follow a topological order.
      if (missing.some((maker) => state.get(maker) === "open")) {
        return stack.findLast(
          (waiting) => partners.has(waiting) && (waiting === next || state.get(waiting) === "open"),
        )!;
      }
      for (const member of members) state.set(member, "open");
      stack.push(...missing);
    }
  }
  return units;
}

const makers = (node: Node): Node[] =>
  node.inputs.flatMap((input) => (input?.source.kind === "node" ? [input.source.node] : []));
