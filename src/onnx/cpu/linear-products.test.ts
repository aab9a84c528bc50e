import { describe, expect, it } from "vitest";
import { runGraph } from "../../../test/support/check-gradients.js";
import { operatorsOf } from "../../../test/support/onnx-nodes.js";
import { relativeError } from "../../../test/support/relative-error.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { Generator, randn } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import { lower, type Target } from "../index.js";

const generator = new Generator(5);

type Form = "split" | "transposed" | "plain";

interface Case {
  x: number[];
  columns: number;
  /** Of x wᵀ. */
  linear: Form;
  /** Of x w. */
  product: Form;
}

const CASES: Record<string, Case> = {
  "two parts": { x: [2, 40, 3072], columns: 320, linear: "split", product: "split" },
  "four parts": { x: [70, 6144], columns: 256, linear: "split", product: "split" },
  "few rows of a large weight": { x: [2, 12, 1280], columns: 1024, linear: "transposed", product: "plain" },
  "few rows, which could be split": { x: [1, 64, 3072], columns: 512, linear: "transposed", product: "split" },
  "rows that would become too short": { x: [66, 4096], columns: 264, linear: "plain", product: "plain" },
  "few columns": { x: [80, 3072], columns: 64, linear: "plain", product: "plain" },
  "one row": { x: [1, 1280], columns: 1024, linear: "plain", product: "plain" },
};

/** What the CPU's form and the plain operator make, and which nodes the former consists of. */
async function bothWays(build: (graph: Graph) => Value, feeds: Record<string, Tensor>) {
  const results: Float32Array[] = [];
  for (const target of ["cpu", "portable"] as Target[]) {
    const graph = new Graph();
    graph.output("y", build(graph));
    results.push((await runGraph(graph, feeds, target)).y!.data as Float32Array);
  }
  const graph = new Graph();
  graph.output("y", build(graph));
  const written = operatorsOf(lower(graph, "cpu").bytes);
  const form = written.includes("Split") ? "split" : written.includes("Transpose") ? "transposed" : "plain";
  return { results: results as [Float32Array, Float32Array], form };
}

describe("a product by a weight in another form", () => {
  for (const [name, { x: shape, columns, linear, product }] of Object.entries(CASES)) {
    const terms = shape.at(-1)!;
    const x = randn(shape, { generator });
    const weight = randn([columns, terms], { generator });
    const bias = randn([columns], { generator });

    it.each([true, false])(`${name}: linear layer, with bias: %s`, async (hasBias) => {
      const build = (graph: Graph) =>
        ops.linear(
          graph.input("x", "float32", shape),
          graph.constant(weight),
          hasBias ? graph.constant(bias) : undefined,
        );
      const { results, form } = await bothWays(build, { x });
      expect(form).toBe(linear);
      expect(relativeError(...results)).toBeLessThan(2e-6);
    });

    it(`${name}: its gradient's product`, async () => {
      const build = (graph: Graph) =>
        ops.matMul(graph.input("x", "float32", shape), graph.constant(weight.reshape([terms, columns])));
      const { results, form } = await bothWays(build, { x });
      expect(form).toBe(product);
      expect(relativeError(...results)).toBeLessThan(2e-6);
    });
  }
});
