// Counts floating-point operations: what a graph costs before it is run.

import { type Graph, operationsOf, reachableNodes } from "../../src/graph/index.js";

/** {@link operationsOf} over every node that a declared output depends on. */
export function operationCount(graph: Graph): number {
  return reachableNodes(graph, graph.outputs.values()).reduce((sum, node) => sum + operationsOf(node), 0);
}
