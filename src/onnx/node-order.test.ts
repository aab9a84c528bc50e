import { expect, it } from "vitest";
import { tracedOrder } from "../../test/support/traced-order.js";
import { type GradientOptions, gradients } from "../autodiff/index.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { randn } from "../tensor/random.js";
import { activationMemory } from "./activation-memory.js";
import { lower } from "./index.js";

const LAYERS = 6;
/** Names of the products of linear layers, and of their weight gradients. */
const FORWARD_PRODUCT = /^layers\.\d+\/FusedMatMul/;
const WEIGHT_GRADIENT = /^gradient\/layers\.(\d+)\/FusedMatMul/;

/** Linear layers with tanh, and the gradient of every weight. */
function perceptron(layers: number, options: GradientOptions = {}) {
  const graph = new Graph();
  let x = graph.input("x", "float32", [4, 8]);
  const weights: Value[] = [];
  for (let i = 0; i < layers; i++) {
    const weight = graph.input(`w${i}`, "float32", [8, 8]);
    weights.push(weight);
    x = graph.inLayer(`layers.${i}`, () => ops.tanh(ops.linear(x, weight)));
  }
  const loss = ops.reduceSum(ops.mul(x, x));
  graph.output("loss", loss);
  gradients(loss, weights, options).forEach((gradient, i) => {
    graph.output(`g${i}`, gradient);
  });
  const feeds = Object.fromEntries([["x", randn([4, 8])], ...weights.map((_, i) => [`w${i}`, randn([8, 8])])]);
  return { graph, feeds };
}

it("runs the whole forward first, then the gradients from the last layer to the first", async () => {
  const { graph, feeds } = perceptron(LAYERS);
  const order = await tracedOrder(graph, feeds);

  // Each linear layer is one product, and so is each weight gradient; the latter are the graph's leaves.
  const places = (pattern: RegExp) => order.flatMap((name, at) => (pattern.test(name) ? [at] : []));
  const tanhs = places(/^layers\.\d+\/Tanh/);
  const [forward, backward] = [places(FORWARD_PRODUCT), places(WEIGHT_GRADIENT)];
  for (const each of [tanhs, forward, backward]) expect(each).toHaveLength(LAYERS);
  const lastForward = tanhs.at(-1)!;
  expect(Math.max(...forward)).toBeLessThan(lastForward);
  expect(Math.min(...backward)).toBeGreaterThan(lastForward);
  // Leaves lie in the file in reverse of the order in which they are wanted.
  const layers = backward.map((at) => Number(WEIGHT_GRADIENT.exec(order[at]!)![1]));
  expect(layers).toEqual([5, 4, 3, 2, 1, 0]);
});

it("recomputes activations segment by segment, after the gradients of what follows", async () => {
  const layers = 16;
  const { graph, feeds } = perceptron(layers, { recompute: true });
  const order = await tracedOrder(graph, feeds);
  const again = order.flatMap((name, at) => (/^recompute\/layers\.\d+\/Tanh/.test(name) ? [at] : []));
  const lastGradient = order.findLastIndex((name) => WEIGHT_GRADIENT.test(name));
  // Each gradient of a weight reads the activation below it, which is either kept or among these.
  expect(again.length).toBeGreaterThan(layers / 2);
  expect(again.length).toBeLessThan(layers);
  const gaps = again
    .slice(1)
    .map((at, i) => order.slice(again[i], at).filter((name) => /^gradient\/.*\/(Mul|Sub)/.test(name)).length);
  const groups = gaps.filter((gradientNodes) => gradientNodes > 0).length + 1;
  expect(groups).toBeGreaterThanOrEqual(3);
  expect(again.at(-1)!).toBeLessThan(lastGradient);
});

it("runs in the order that executionOrder works out", async () => {
  for (const recompute of [false, true]) {
    const { graph, feeds } = perceptron(LAYERS, { recompute });
    expect(await tracedOrder(graph, feeds)).toEqual(activationMemory(lower(graph, "cpu").bytes).order);
  }
});
