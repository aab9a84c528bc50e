import { describe, expect, it } from "vitest";
import { runGraph } from "../../../test/support/check-gradients.js";
import { relativeError } from "../../../test/support/relative-error.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { activationMemory } from "../activation-memory.js";
import { lower } from "../index.js";
import { orderedUnits } from "./shared-convolutions.js";

const WIDE = 512;
const SIDE = 16;

const image = (graph: Graph, name: string, batch = 1) => graph.input(name, "float32", [batch, WIDE, SIDE, SIDE]);
const kernel = (graph: Graph, name = "w") => graph.input(name, "float32", [WIDE, WIDE, 3, 3]);
const convolve = (x: Value, w: Value, bias?: Value) => ops.conv(x, w, bias, { padding: 1 });
const pairsOf = (graph: Graph) => orderedUnits(graph.nodes, "cpu").filter((unit) => unit.length === 2);

describe("convolutions with the same weight", () => {
  it("are taken in pairs, layer by layer, each after what it depends on", () => {
    const graph = new Graph();
    const [w, v] = [kernel(graph), kernel(graph, "v")];
    const pass = (x: Value) => convolve(ops.silu(convolve(x, w)), v);
    const [a, b] = [pass(image(graph, "a")), pass(image(graph, "b"))];
    graph.output("y", ops.add(a, b));
    const units = orderedUnits(graph.nodes, "cpu");
    expect(units.map((unit) => unit.map(({ op }) => op).join("+"))).toEqual([
      "Conv+Conv",
      "Silu",
      "Silu",
      "Conv+Conv",
      "Add",
    ]);
  });

  it("stay separate where one depends on the other, directly or through another pair", () => {
    const chain = new Graph();
    const w = kernel(chain);
    chain.output("y", convolve(convolve(image(chain, "x"), w), w));
    expect(pairsOf(chain)).toEqual([]);

    const crossed = new Graph();
    const [first, second] = [kernel(crossed), kernel(crossed, "v")];
    const left = convolve(ops.silu(convolve(image(crossed, "a"), first)), second);
    const right = convolve(ops.silu(convolve(image(crossed, "b"), second)), first);
    crossed.output("y", ops.add(left, right));
    expect(pairsOf(crossed)).toHaveLength(1);
    expect(orderedUnits(crossed.nodes, "cpu").flat()).toHaveLength(crossed.nodes.length);
  });

  it("stay separate where the weight is small against the images", () => {
    const graph = new Graph();
    const w = graph.input("w", "float32", [64, 64, 3, 3]);
    const x = (name: string) => graph.input(name, "float32", [1, 64, 64, 64]);
    graph.output("y", ops.add(convolve(x("a"), w), convolve(x("b"), w)));
    expect(pairsOf(graph)).toEqual([]);
  });

  for (const batch of [1, 2]) {
    it(`give the same as separate ones, ${batch} samples each`, async () => {
      const generator = new Generator(6);
      const feeds = {
        a: randn([batch, WIDE, SIDE, SIDE], { generator }),
        b: randn([batch, WIDE, SIDE, SIDE], { generator }),
        w: randn([WIDE, WIDE, 3, 3], { generator }),
        bias: randn([WIDE], { generator }),
      };
      const graph = new Graph();
      const [a, b] = [image(graph, "a", batch), image(graph, "b", batch)];
      const [w, bias] = [kernel(graph), graph.input("bias", "float32", [WIDE])];
      const [left, right] = [convolve(a, w, bias), convolve(b, w, bias)];
      graph.output("left", ops.mul(left, 1));
      graph.output("right", ops.mul(right, 1));
      expect(pairsOf(graph)).toHaveLength(1);
      const fast = await runGraph(graph, feeds, "cpu");
      const plain = await runGraph(graph, feeds, "portable");
      for (const name of ["left", "right"]) {
        const error = relativeError(fast[name]!.data as Float32Array, plain[name]!.data as Float32Array);
        expect(error, name).toBeLessThan(5e-6);
      }
    });
  }

  it("hold one block of transformed weights at a time", () => {
    const graph = new Graph();
    const w = graph.input("w", "float32", [4 * WIDE, WIDE, 3, 3]);
    const x = (name: string) => convolve(image(graph, name), w);
    graph.output("y", ops.add(x("a"), x("b")));
    expect(pairsOf(graph)).toHaveLength(1);
    const wholeWeight = 4 * 36 * 4 * WIDE * WIDE;
    expect(activationMemory(lower(graph, "cpu").bytes).peakBytes).toBeLessThan(wholeWeight / 3);
  });
});
