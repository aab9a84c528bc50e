import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { describe, expect, it } from "vitest";
import { gradients } from "../autodiff/index.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { activationMemory } from "./activation-memory.js";
import { executionOrder } from "./execution-order.js";
import { lower, type Target } from "./index.js";
import { OnnxModelBuilder } from "./model-builder.js";
import { tensorSizes } from "./onnx-shapes.js";

const KB = 1024;

describe("executionOrder", () => {
  it("starts from the last leaf in the file and prefers the latest of the nodes that a node depends on", () => {
    const nodes = [
      { input: ["x"], output: ["a"] },
      { input: ["x"], output: ["b"] },
      { input: ["a", "b"], output: ["c"] },
      { input: ["b"], output: ["d"] },
    ];
    expect(executionOrder(nodes)).toEqual([1, 3, 0, 2]);
    expect(executionOrder([])).toEqual([]);
  });
});

describe("activationMemory", () => {
  const memory = (build: (x: Value) => Value): number => {
    const graph = new Graph();
    graph.output("y", build(graph.input("x", "float32", [256])));
    return activationMemory(lower(graph, "cpu").bytes).peakBytes;
  };

  it("counts neither inputs nor what is overwritten or shared", () => {
    expect(memory((x) => ops.exp(ops.neg(ops.exp(x))))).toBe(KB);
    // The shape is a constant under another shape, and counts as little.
    expect(memory((x) => ops.reshape(ops.exp(x), [16, 16]))).toBe(KB);
  });

  it("counts what is not overwritten because the planner does not see that shapes agree", () => {
    expect(memory((x) => ops.exp(ops.reshape(ops.exp(x), [16, 16])))).toBe(2 * KB);
  });

  it("holds a value until its last use, and results to the end", () => {
    // exp(x) is needed after its cosine: two, and the cosine is not made in place.
    expect(memory((x) => ops.add(ops.exp(x), ops.cos(ops.exp(x))))).toBe(2 * KB);
    expect(memory((x) => ops.concat([ops.exp(x), ops.neg(x)], 0))).toBe(4 * KB);
  });

  it("says which node runs at the peak", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [4, 256]);
    graph.output("y", ops.reduceSum(ops.softmax(x), [1]));
    const { order, peakStep, liveBytes } = activationMemory(lower(graph, "cpu").bytes);
    expect(order[peakStep]).toBe("ReduceSum");
    expect(liveBytes).toEqual([4 * KB, 4 * KB + 16]);
  });

  it("refuses an operator that it does not know", () => {
    const builder = new OnnxModelBuilder();
    builder.input("x", "float32", [2]);
    const [made] = builder.emit("Einsum", ["x"]);
    builder.output(builder.emit("Neg", [made!], { outputs: ["y"] })[0]!, "float32", [2]);
    expect(() => activationMemory(builder.toBytes())).toThrow(/no shape rule for the operator Einsum/);
  });
});

describe("attention's gradient", () => {
  it("holds the probabilities of one block, not of all", () => {
    const graph = new Graph();
    const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, "float32", [1, 4096, 64])) as [
      Value,
      Value,
      Value,
    ];
    gradients(ops.reduceSum(ops.attention(q, k, v, { heads: 8 })), [q, k, v]).forEach((gradient, i) => {
      graph.output(`${i}`, gradient);
    });
    const block = 4 * 8 * 512 * 4096;
    expect(activationMemory(lower(graph, "cpu").bytes).peakBytes).toBeLessThan(4 * block);
  });

  it("makes only what is wanted", () => {
    const graph = new Graph();
    const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, "float32", [1, 4, 8])) as [Value, Value, Value];
    const [dv] = gradients(ops.reduceSum(ops.attention(q, k, v, { heads: 1 })), [v]);
    graph.output("dv", dv!);
    const { order } = activationMemory(lower(graph, "cpu").bytes);
    // q kᵀ and Pᵀ dO.
    expect(order.filter((name) => /MatMul/.test(name))).toHaveLength(2);
  });
});

describe("tensorSizes", () => {
  for (const target of ["cpu", "portable"] as Target[]) {
    it(`infers the shape of every value, whichever operator made it (${target})`, () => {
      const graph = everything();
      const model = fromBinary(ModelProtoSchema, lower(graph, target).bytes);
      // Without the declared results all shapes come from inference.
      const names = new Map([...graph.outputs].map(([name, value]) => [value, name]));
      const sizes = tensorSizes({ ...model, graph: { ...model.graph!, output: [] } });
      for (const value of graph.nodes.flatMap(({ outputs }) => [...outputs])) {
        const size = sizes.get(names.get(value) ?? `v${value.id}`);
        if (!size) continue;
        expect(size.shape, `${value} of ${value.source.kind === "node" && value.source.node.op}`).toEqual(value.shape);
        expect(size.itemBytes).toBe({ float32: 4, float16: 2, int64: 8, int32: 4, bool: 1 }[value.dtype]);
      }
      expect(sizes.size).toBeGreaterThan(graph.nodes.length);
    });
  }
});

/** One graph with every kind of operator and the gradients of all. */
function everything(): Graph {
  const graph = new Graph();
  const input = (name: string, shape: number[]) => graph.input(name, "float32", shape);
  const image = input("image", [2, 4, 6, 6]);
  const kernel = input("kernel", [8, 4, 3, 3]);
  const gamma = input("gamma", [8]);
  const weight = input("weight", [16, 8]);
  const table = input("table", [5, 8]);
  const wanted = [image, kernel, gamma, weight, table];
  let x = ops.conv(image, kernel, undefined, { padding: 1, stride: 2 });
  x = ops.silu(ops.groupNorm(x, gamma, gamma, 2, 1e-5).y);
  x = ops.sumPool(ops.upsampleNearest(ops.upsampleNearest(x), 3), 2);
  const rows = ops.transpose(ops.reshape(x, [2, 8, -1]), [0, 2, 1]);
  const h = ops.layerNorm(ops.geglu(ops.linear(rows, weight)), gamma, gamma, 1e-5).y;
  const words = ops.gather(table, graph.input("ids", "int64", [2, 7]));
  let y = ops.attention(h, words, words, { heads: 2 });
  y = ops.add(y, ops.attention(y, y, y, { heads: 4, causal: true }));
  const batched = ops.matMul(y, words, { transposeB: true });
  const product = ops.matMul(ops.softmax(batched), words);
  const joined = ops.concat([ops.slice(product, 1, 3, 9), ops.pad(y, 1, 2, 3)], 1);
  const chosen = ops.where(ops.greater(joined, 0), ops.exp(joined), ops.tanh(joined));
  const summed = ops.reduceSum(ops.mul(chosen, ops.expand(ops.reduceMean(chosen, [1], true), chosen.shape)), [0], true);
  const curves = [ops.gelu, ops.quickGelu, ops.erf, ops.sigmoid, ops.relu, ops.sin, ops.cos, ops.neg].map((f) =>
    f(summed),
  );
  const total = curves.reduce((a, b) => ops.sub(a, ops.div(b, ops.sqrt(ops.add(ops.mul(b, b), 1)))));
  graph.output("ids32", ops.cast(ops.reduceMean(total), "int32"));
  const loss = ops.reduceSum(ops.log(ops.add(ops.mul(total, total), 1)));
  gradients(loss, wanted, { recompute: true }).forEach((gradient, i) => {
    graph.output(`gradient${i}`, gradient);
  });
  return graph;
}
