import { describe, expect, it } from "vitest";
import { runGraph } from "../../test/support/check-gradients.js";
import { relativeError } from "../../test/support/relative-error.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";

const TOLERANCE = 1e-6;
const generator = new Generator(11);
const draw = (...shape: number[]) => randn(shape, { generator });
const angles = draw(5, 4).data.map((value) => 9 * value);
const cos = tensor(angles.map(Math.cos), [5, 4]);
const sin = tensor(angles.map(Math.sin), [5, 4]);

/** x turned as its definition says. @param pair - The two features of pair i of a head of eight. */
function turned({ data }: Tensor<"float32">, pair: (i: number) => readonly [number, number]): Float32Array {
  const result = new Float32Array(data.length);
  for (let head = 0; head < data.length / 8; head++) {
    const token = Math.floor(head / 3) % 5;
    for (let i = 0; i < 4; i++) {
      const [first, second] = pair(i).map((feature) => 8 * head + feature) as [number, number];
      const [c, s] = [cos.data[4 * token + i]!, sin.data[4 * token + i]!];
      result[first] = data[first]! * c - data[second]! * s;
      result[second] = data[first]! * s + data[second]! * c;
    }
  }
  return result;
}

function rootMeanSquares({ data }: Tensor<"float32">, width: number, epsilon: number): Float32Array {
  return data.map((_, i) => {
    const row = data.subarray(Math.floor(i / width) * width, Math.floor(i / width + 1) * width);
    return Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / width + epsilon);
  });
}

const x = draw(2, 5, 24);
const b = draw(2, 5, 24);
const weight = draw(6);
const rms = rootMeanSquares(x, 6, 0.1);
const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));

type Values = Record<"x" | "b" | "weight" | "cos" | "sin", Value>;
const cases: Record<string, [build: (values: Values) => Value, expected: Float32Array]> = {
  "rotary of neighbours": [
    ({ x, cos, sin }) => ops.rotary(x, cos, sin, { heads: 3, pairs: "adjacent" }),
    turned(x, (i) => [2 * i, 2 * i + 1]),
  ],
  "rotary of halves": [
    ({ x, cos, sin }) => ops.rotary(x, cos, sin, { heads: 3, pairs: "halves" }),
    turned(x, (i) => [i, i + 4]),
  ],
  "rmsNorm by heads": [
    ({ x, weight }) => ops.rmsNorm(ops.reshape(x, [2, 5, 4, 6]), weight, 0.1),
    x.data.map((value, i) => (value / rms[i]!) * weight.data[i % 6]!),
  ],
  "rmsNorm without scale": [
    ({ x }) => ops.rmsNorm(ops.reshape(x, [2, 5, 4, 6]), undefined, 0.1),
    x.data.map((value, i) => value / rms[i]!),
  ],
  swiglu: [({ x, b }) => ops.swiglu(x, b), x.data.map((value, i) => value * sigmoid(value) * b.data[i]!)],
  geluTanh: [
    ({ x }) => ops.geluTanh(x),
    x.data.map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))),
  ],
};

describe("operators compute their formulas on both targets", () => {
  for (const [name, [build, expected]] of Object.entries(cases)) {
    it(name, async () => {
      for (const target of ["cpu", "portable"] as const) {
        const graph = new Graph();
        const feeds = { x, b, weight, cos, sin };
        const values = Object.fromEntries(
          Object.entries(feeds).map(([key, value]) => [key, graph.input(key, "float32", value.shape)]),
        ) as Values;
        graph.output("y", build(values));
        const { y } = await runGraph(graph, feeds, target);
        expect(relativeError(y!.data as Float32Array, expected), target).toBeLessThan(TOLERANCE);
      }
    });
  }
});

describe("what new operators refuse", () => {
  const graph = new Graph();
  const given = graph.input("x", "float32", [1, 5, 24]);
  const angle = graph.input("angle", "float32", [5, 4]);

  it("angles of other tokens or pairs", () => {
    expect(() => ops.rotary(given, angle, angle, { heads: 4, pairs: "halves" })).toThrow(
      /Rotary: cos and sin must be \[5, 3\]; got x=float32\[1,5,24\], cos=float32\[5,4\]/,
    );
  });

  it("sizes of parts that do not add up", () => {
    expect(() => ops.splitFeatures(given, [20, 5])).toThrow(/sizes 20, 5 must add up to the last axis; got x=/);
  });

  it("heads of keys that do not divide those of queries", () => {
    expect(() => ops.attention(given, given, given, { heads: 8, keyHeads: 3 })).toThrow(/keyHeads must divide heads/);
  });
});
