import { describe, expect, it } from "vitest";
import { runGraph } from "../../test/support/check-gradients.js";
import { operationCount } from "../../test/support/operation-count.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import { activationMemory } from "../onnx/activation-memory.js";
import { lower, type Target } from "../onnx/index.js";
import { Generator, rand, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { gradients } from "./gradients.js";

const generator = new Generator(5);
const CHANNELS = 8;
const BLOCKS = 6;

/** Residual convolution blocks behind an embedding, a skip from the first to the last, dropout masks, attention. */
function network(recompute: boolean) {
  const graph = new Graph();
  const wanted = new Map<string, Value>();
  const weight = (name: string, shape: number[]): Value => {
    const value = graph.input(name, "float32", shape);
    wanted.set(name, value);
    return value;
  };
  const ids = graph.input("ids", "int64", [2, 64]);
  const embedded = ops.gather(weight("table", [10, CHANNELS]), ids);
  let x = ops.reshape(ops.transpose(embedded, [0, 2, 1]), [2, CHANNELS, 8, 8]);
  const scale = ops.sigmoid(weight("scale", [CHANNELS, 1, 1]));
  let first: Value | undefined;
  for (let i = 0; i < BLOCKS; i++) {
    const normalized = ops.groupNorm(x, weight(`gamma${i}`, [CHANNELS]), weight(`beta${i}`, [CHANNELS]), 2, 1e-5).y;
    let y = ops.conv(ops.silu(normalized), weight(`kernel${i}`, [CHANNELS, CHANNELS, 3, 3]), undefined, { padding: 1 });
    y = ops.mul(ops.relu(y), graph.input(`mask${i}`, "float32", y.shape));
    x = ops.add(x, ops.mul(y, scale));
    first ??= x;
  }
  const tokens = ops.transpose(ops.reshape(ops.add(x, first!), [2, CHANNELS, 64]), [0, 2, 1]);
  const q = ops.linear(tokens, weight("query", [CHANNELS, CHANNELS]));
  const out = ops.attention(q, tokens, tokens, { heads: 2 });
  const loss = ops.reduceMean(ops.mul(out, out));
  graph.output("loss", loss);
  gradients(loss, [...wanted.values()], { recompute }).forEach((gradient, i) => {
    graph.output(`gradient.${[...wanted.keys()][i]}`, gradient);
  });
  return graph;
}

function feedsOf(graph: Graph) {
  return Object.fromEntries(
    [...graph.inputs].map(([name, { shape, dtype }]) => {
      if (dtype !== "int64") return [name, randn(shape, { generator })];
      const ids = rand(shape, { generator }).data;
      return [
        name,
        tensor(
          [...ids].map((value) => Math.floor(value * 10)),
          shape,
          "int64",
        ),
      ];
    }),
  );
}

describe("gradients with recomputation", () => {
  for (const target of ["cpu", "portable"] as Target[]) {
    it(`are the very same numbers (${target})`, async () => {
      const [plain, saving] = [network(false), network(true)];
      const feeds = feedsOf(plain);
      const expected = await runGraph(plain, feeds, target);
      const result = await runGraph(saving, feeds, target);
      expect(Object.keys(result)).toEqual(Object.keys(expected));
      for (const [name, value] of Object.entries(result)) expect(value, name).toEqual(expected[name]);
    });
  }

  it("recompute forward values, and hold less at once", () => {
    const [plain, saving] = [network(false), network(true)];
    const peak = (graph: Graph) => activationMemory(lower(graph, "cpu").bytes).peakBytes;
    expect(operationCount(saving)).toBeGreaterThan(operationCount(plain));
    expect(peak(saving)).toBeLessThan(0.8 * peak(plain));
    const silus = ops.reachableNodes(saving, saving.outputs.values()).filter(({ op }) => op === "Silu");
    expect(silus.length).toBeGreaterThan(BLOCKS);
    expect(silus.length).toBeLessThan(2 * BLOCKS);
  });

  it("leave nothing of the trial walk that decides what to keep", () => {
    const graph = network(true);
    const made = new Set(graph.nodes.flatMap(({ outputs }) => outputs));
    for (const { inputs } of graph.nodes) {
      for (const input of inputs) if (input?.source.kind === "node") expect(made.has(input)).toBe(true);
    }
    graph.nodes.forEach((node, i) => {
      expect(node.index).toBe(i);
    });
  });

  it("are zeros for a value that the loss does not depend on, and name an operator without a gradient", async () => {
    const graph = new Graph();
    const [x, other] = [graph.input("x", "float32", [2]), graph.input("other", "float32", [2])];
    const [gradient] = gradients(ops.reduceSum(x), [other], { recompute: true });
    graph.output("gradient", gradient!);
    const result = await runGraph(graph, { x: tensor([3, 5]), other: tensor([1, 1]) });
    expect([...(result.gradient!.data as Float32Array)]).toEqual([0, 0]);
    const cast = ops.reduceSum(ops.cast(ops.cast(x, "int32"), "float32"));
    expect(() => gradients(cast, [x], { recompute: true })).toThrow(/Cast has no gradient/);
  });
});
