import { describe, expect, it } from "vitest";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { tensor } from "../tensor/tensor.js";
import { lower } from "./index.js";
import { fallbacksOf, type ListedProvider, PROVIDER_OPERATORS } from "./provider-operators.js";

function onCpu(provider: ListedProvider, build: (x: Value) => Value): string[] {
  const graph = new Graph();
  graph.output("y", build(graph.input("x", "float32", [2, 2])));
  const { operators } = fallbacksOf(lower(graph, "portable").bytes, provider);
  return operators.map(({ operator, nodes, why }) => `${operator} ${nodes} ${why}`);
}

describe("what a provider leaves to the CPU", () => {
  it("is what its table lacks, the most frequent first", () => {
    const build = (x: Value) => ops.gelu(ops.exp(ops.mul(ops.exp(x), 2)));
    expect(onCpu("webgpu", build)).toEqual([]);
    expect(onCpu("cuda", build)).toEqual([]);
    expect(onCpu("dml", build)).toEqual(["Gelu 1 is not computed there"]);
    expect(onCpu("coreml", build)).toEqual(["Exp 2 is not computed there", "Gelu 1 is not computed there"]);
  });

  it("is what needs a constant and gets a value", () => {
    const weight = (x: Value) => x.graph.constant(tensor([1, 2, 3, 4], [2, 2]));
    expect(onCpu("coreml", (x) => ops.matMul(x, weight(x)))).toEqual([]);
    expect(onCpu("coreml", (x) => ops.matMul(x, x))).toEqual(["MatMul 1 needs a constant where the graph has a value"]);
    expect(onCpu("dml", (x) => ops.matMul(x, x))).toEqual([]);
  });

  it("is told with where the table was read", () => {
    for (const { source } of Object.values(PROVIDER_OPERATORS)) expect(source).toMatch(/\.md/);
  });
});
