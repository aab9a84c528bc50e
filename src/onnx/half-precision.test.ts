import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema, TensorProto_DataType } from "onnx-buf";
import { expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { compile } from "../runtime/index.js";
import "../runtime/node.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { inHalfPrecision, lower } from "./index.js";

/** A normalized product, attended to, and its sum. */
function graphOf(): Graph {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2, 8, 16]);
  const weight = graph.constant(randn([16, 16], { generator: new Generator(1) }));
  const gamma = graph.constant(tensor(new Float32Array(16).fill(1), [16]));
  const normalized: Value = ops.layerNorm(x, gamma, gamma, 1e-5).y;
  const y = ops.silu(ops.linear(normalized, weight));
  graph.output("attended", ops.attention(y, y, y, { heads: 2 }));
  graph.output("product", ops.matMul(y, y, { transposeB: true }));
  graph.output("sum", ops.reduceSum(ops.mul(y, y)));
  return graph;
}

it("computes products in float16, and statistics, softmax and sums in float32; inputs and results are float32", async () => {
  const { graph } = fromBinary(ModelProtoSchema, inHalfPrecision(lower(graphOf(), "portable").bytes));
  const { FLOAT, FLOAT16 } = TensorProto_DataType;
  const types = new Map(graph!.initializer.map(({ name, dataType }) => [name, dataType]));
  types.set("x", FLOAT);
  const taken: Record<string, Set<number>> = {};
  for (const { opType, input, output, attribute } of graph!.node) {
    const own = types.get(input[0]!)!;
    taken[opType] = (taken[opType] ?? new Set()).add(own);
    const to = opType === "Cast" ? Number(attribute[0]!.i) : own;
    for (const name of output) types.set(name, to);
  }
  for (const product of ["MatMul", "Sigmoid"]) expect([...taken[product]!], product).toEqual([FLOAT16]);
  for (const exact of ["ReduceMean", "ReduceSum", "Softmax", "Sqrt"])
    expect([...taken[exact]!], exact).toEqual([FLOAT]);
  expect(graph!.output.map(({ name }) => types.get(name))).toEqual([FLOAT, FLOAT, FLOAT]);
  // A weight is there once, in half the bytes.
  const weights = graph!.initializer.filter(({ dims }) => dims.join() === "16,16");
  expect(weights.map(({ rawData }) => rawData.length)).toEqual([2 * 16 * 16]);

  const feeds = { x: randn([2, 8, 16], { generator: new Generator(2) }) };
  const run = async (precision: "float32" | "float16") => {
    const compiled = await compile(graphOf(), { precision });
    return compiled.run(feeds).finally(() => compiled.release());
  };
  const [full, half] = [await run("float32"), await run("float16")];
  for (const [name, { data, dtype }] of Object.entries(half)) {
    const error = relativeError(data as Float32Array, full[name]!.data as Float32Array);
    expect(dtype).toBe("float32");
    expect(error, name).toBeLessThan(2e-3);
    expect(error, name).toBeGreaterThan(1e-6);
  }
});
