import { expect, it } from "vitest";
import { operationCount } from "../../test/support/operation-count.js";
import { gradients } from "../autodiff/index.js";
import * as ops from "./index.js";
import { Graph } from "./index.js";

it("counts products of layers twice per multiplication, and only what an output needs", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2, 8, 4, 4]);
  const convolved = ops.conv(x, graph.input("kernel", "float32", [16, 8, 3, 3]), undefined, { padding: 1 });
  graph.output("convolved", convolved);
  expect(operationCount(graph)).toBe(2 * (2 * 16 * 16) * (8 * 9));
  ops.exp(convolved);
  expect(operationCount(graph)).toBe(2 * (2 * 16 * 16) * (8 * 9));
});

it("counts as much for each of a layer's two gradients as for the layer", () => {
  for (const side of [0, 1]) {
    const graph = new Graph();
    const inputs = [
      graph.input("x", "float32", [2, 8, 4, 4]),
      graph.input("kernel", "float32", [16, 8, 3, 3]),
    ] as const;
    const y = ops.conv(...inputs, undefined, { padding: 1 });
    graph.output("gradient", gradients(ops.reduceSum(ops.mul(y, y)), [inputs[side]!])[0]!);
    const layer = 2 * y.size * 72;
    expect(operationCount(graph)).toBeGreaterThanOrEqual(2 * layer);
    expect(operationCount(graph)).toBeLessThan(2.1 * layer);
  }
});

it("counts attention by its two products and its gradient by five", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [1, 32, 8]);
  const y = ops.attention(x, x, x, { heads: 2 });
  graph.output("y", y);
  expect(operationCount(graph)).toBe(2 * (2 * 32 * 32 * 8));
});
