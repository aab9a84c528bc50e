// Reverse-mode differentiation over a graph: one walk backwards through the nodes that lead to a wanted value.

import { GradientError } from "../errors.js";
import { add, mul, type Node, type OperatorName, reduceSum, reshape, sameShape, type Value } from "../graph/index.js";
import { Recomputation } from "./recomputation.js";
import { planRecomputation, type Visit } from "./recompute-plan.js";
import { NoGradient, RULES, type Rule } from "./rules.js";

/** Options of {@link gradients}. */
export interface GradientOptions {
  /**
   * Recomputes most of the forward pass, segment by segment, just before the gradients that need it, instead of storing
   * it (gradient checkpointing): less memory for more operations, and the same numbers. Default false.
   */
  recompute?: boolean;
}

/**
 * Adds the gradient of a scalar with respect to each wanted value to the graph.
 *
 * Only nodes between a wanted value and the loss are visited: a frozen weight gets no gradient node at all. Wanted
 * values that do not reach the loss get zeros.
 *
 * @param loss - float32 with one element.
 * @param wanted - Inputs, weights or intermediate values.
 * @returns One gradient per wanted value, of its shape.
 * @throws {GradientError} Where the path leads through an operator without a gradient; the message names it.
 * @see Chen et al. 2016, arXiv:1604.06174, for `recompute`
 */
export function gradients(loss: Value, wanted: readonly Value[], options: GradientOptions = {}): Value[] {
  if (loss.size !== 1 || loss.dtype !== "float32") {
    throw new GradientError(
      `gradients: the loss must be one float32 number; got ${loss}. Reduce it to a scalar first.`,
    );
  }
  if (!options.recompute || wanted.length === 0) return walk(loss, wanted, { view: (node) => node });
  const { graph } = loss;
  const forwardCount = graph.nodes.length;
  const visits: Visit[] = [];
  const trial = walk(loss, wanted, { view: (node) => node, visited: (visit) => visits.push(visit) });
  const plan = planRecomputation(visits, trial, forwardCount);
  graph.discard(forwardCount);
  return walk(loss, wanted, new Recomputation(plan));
}

/** How a walk sees the forward nodes. */
interface Forward {
  /** The node that a rule is given in place of a forward node: itself, or a recomputation with equal values. */
  view(node: Node, contributions: ReadonlyMap<Value, Value>): Node;
  /** Called after each rule. */
  visited?(visit: Visit): void;
}

function walk(loss: Value, wanted: readonly Value[], forward: Forward): Value[] {
  return loss.graph.inPhase("gradient", () => walkBackwards(loss, wanted, forward));
}

function walkBackwards(loss: Value, wanted: readonly Value[], forward: Forward): Value[] {
  const { graph } = loss;
  const leads = new Set<Value>(wanted);
  const nodes = graph.nodes.slice();
  for (const node of nodes) {
    if (node.op === "StopGradient") continue;
    // A bool is a choice, not a quantity: nothing flows through it, and `where` differentiates its two sides only.
    if (!node.inputs.some((input) => input && leads.has(input))) continue;
    for (const output of node.outputs) if (output.dtype !== "bool") leads.add(output);
  }
  const contributions = new Map<Value, Value>();
  if (leads.has(loss)) contributions.set(loss, reshape(graph.scalar(1), loss.shape));
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]!;
    graph.inLayer(node.layer, () => visit(node, leads, contributions, forward));
  }
  return wanted.map((value) => contributions.get(value) ?? mul(value, 0));
}

function visit(node: Node, leads: ReadonlySet<Value>, contributions: Map<Value, Value>, forward: Forward): void {
  if (!node.outputs.some((output) => contributions.has(output))) return;
  const needs = node.inputs.map((input) => input !== undefined && leads.has(input));
  if (!needs.includes(true)) return;
  const rule = RULES[node.op];
  if (rule instanceof NoGradient) {
    throw new GradientError(
      `gradients: ${described(node)} has no gradient: ${rule.reason}. Inputs were ${node.inputs.join(", ")}.`,
    );
  }
  const { nodes } = node.outputs[0]!.graph;
  const first = nodes.length;
  const dy = incoming(node, contributions);
  const seen = forward.view(node, contributions);
  const context = { x: seen.inputs as Value[], y: seen.outputs[0]!, dy, attributes: node.attributes as never };
  const results = (rule as Rule<OperatorName>)({ ...context, needs, node: seen });
  node.inputs.forEach((input, i) => {
    const gradient = results[i];
    if (!input || !needs[i]) return;
    if (!gradient)
      throw new GradientError(`gradients: ${described(node)} has no gradient in its input ${i} (${input}).`);
    const summed = sumToShape(gradient, input.shape);
    const known = contributions.get(input);
    contributions.set(input, known ? add(known, summed) : summed);
  });
  forward.visited?.({ node, first, end: nodes.length });
}

/** The gradient of a node's first output. @throws {GradientError} If another output was used. */
function incoming(node: Node, contributions: ReadonlyMap<Value, Value>): Value {
  const [y, ...statistics] = node.outputs;
  const beyond = statistics.findIndex((output) => contributions.has(output));
  if (beyond >= 0) {
    throw new GradientError(
      `gradients: ${described(node)} is differentiable in its first output only; output ${beyond + 1} was used.`,
    );
  }
  return contributions.get(y!)!;
}

/** The operator and the layer that it belongs to, for messages. */
const described = ({ op, layer }: Node): string => `${op}${layer && ` "${layer}"`}`;

/** Sums over the axes that broadcasting added or stretched. */
function sumToShape(gradient: Value, shape: readonly number[]): Value {
  if (sameShape(gradient.shape, shape)) return gradient;
  const extra = gradient.rank - shape.length;
  const axes = gradient.shape.flatMap((dimension, i) =>
    i < extra || (shape[i - extra] === 1 && dimension !== 1) ? [i] : [],
  );
  return reshape(reduceSum(gradient, axes), shape);
}
