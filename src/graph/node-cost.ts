// What nodes cost before they are run, and which of them are run at all.

import type { Graph, Node, Value } from "./graph.js";

/**
 * Floating-point operations of one node: a multiplication and an addition count as two.
 *
 * Matrix products, convolutions and attention by their formulas (the gradient of attention recomputes its probabilities:
 * five products instead of two); everything else as one operation per element of its first output.
 */
export function operationsOf(node: Node): number {
  const [x, weight] = node.inputs as [Value, Value];
  const y = node.outputs[0]!;
  switch (node.op) {
    case "Conv":
      return 2 * y.size * (weight.size / weight.shape[0]!);
    case "ConvInputGradient":
      return 2 * x.size * (weight.size / weight.shape[0]!);
    case "ConvWeightGradient":
      return 2 * x.size * (y.size / y.shape[0]!);
    case "Linear":
      return 2 * y.size * weight.shape[1]!;
    case "MatMul": {
      const { transposeA } = node.attributes as { transposeA: boolean };
      return 2 * y.size * x.shape.at(transposeA ? -2 : -1)!;
    }
    case "Attention":
      return 4 * x.size * weight.shape[1]!;
    case "AttentionGradient":
      return 10 * x.size * weight.shape[1]!;
    default:
      return y.size;
  }
}

/** The nodes that the given values depend on, in creation order. */
export function reachableNodes(graph: Graph, values: Iterable<Value>): Node[] {
  const reached = new Set<Node>();
  const stack: Value[] = [...values];
  while (stack.length > 0) {
    const { source } = stack.pop()!;
    if (source.kind !== "node" || reached.has(source.node)) continue;
    reached.add(source.node);
    for (const input of source.node.inputs) if (input) stack.push(input);
  }
  return graph.nodes.filter((node) => reached.has(node));
}
