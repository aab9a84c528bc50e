// The order in which ONNX Runtime will run the nodes of a model, worked out without running it.

/** What the order depends on: which names a node takes and makes. */
export interface OrderedNode {
  readonly input: readonly string[];
  readonly output: readonly string[];
}

/**
 * The execution order that ONNX Runtime's sequential executor derives from a model.
 *
 * A depth-first search against the edges, from the leaves (nodes whose outputs no node takes): of the leaves, and of
 * the nodes that a node depends on, the one with the highest position in the file comes first; a node runs once all
 * that it depends on has run. A test holds this against traces of real runs.
 *
 * @param nodes - In file order; names that no node makes are inputs and weights.
 * @returns Positions in `nodes`, in execution order.
 */
export function executionOrder(nodes: readonly OrderedNode[]): number[] {
  const maker = new Map<string, number>();
  nodes.forEach((node, i) => {
    for (const name of node.output) if (name !== "") maker.set(name, i);
  });
  const dependencies = nodes.map((node) => {
    const makers = new Set<number>();
    for (const name of node.input) {
      const index = maker.get(name);
      if (index !== undefined) makers.add(index);
    }
    return [...makers].sort((a, b) => a - b);
  });
  const taken = new Set(dependencies.flat());
  const stack: { index: number; done: boolean }[] = [];
  for (let index = 0; index < nodes.length; index++) if (!taken.has(index)) stack.push({ index, done: false });
  const visited = new Set<number>();
  const order: number[] = [];
  while (stack.length > 0) {
    const { index, done } = stack.pop()!;
    if (done) {
      order.push(index);
      continue;
    }
    if (visited.has(index)) continue;
    visited.add(index);
    stack.push({ index, done: true });
    for (const next of dependencies[index]!) if (!visited.has(next)) stack.push({ index: next, done: false });
  }
  return order;
}
