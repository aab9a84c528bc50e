import { describe, expect, it } from "vitest";
import { tensor } from "../tensor/tensor.js";
import * as ops from "./index.js";
import { Graph, type Value } from "./index.js";

const inputs = (...shapes: number[][]) => {
  const graph = new Graph();
  return shapes.map((shape, i) => graph.input(`x${i}`, "float32", shape));
};

describe("building", () => {
  it("shares equal nodes, so that two passes share what they have in common", () => {
    const [x] = inputs([2, 3]);
    expect(ops.exp(x!)).toBe(ops.exp(x!));
    expect(ops.add(x!, 1)).toBe(ops.add(x!, 1));
    expect(ops.add(x!, 1)).not.toBe(ops.add(x!, 2));
  });

  it("aliases a constant under another shape instead of adding a node", () => {
    const graph = new Graph();
    const constant = graph.constant(tensor([1, 2, 3, 4], [2, 2]));
    expect(ops.reshape(constant, [4]).source.kind).toBe("constant");
    expect(graph.nodes).toHaveLength(0);
  });

  it("takes rows of frozen tensors where they lie, once, and of nothing else", () => {
    const graph = new Graph();
    const range = { path: "w.safetensors", offset: 100, length: 96 };
    const rows = graph.frozenRows(graph.file("w", "float32", [4, 6], range), 1, 3)!;
    expect(rows.shape).toEqual([2, 6]);
    expect(rows.source).toMatchObject({ kind: "file", range: { path: "w.safetensors", offset: 124, length: 48 } });
    const constant = graph.constant(
      tensor(
        Float32Array.from({ length: 600 }, (_, i) => i),
        [300, 2],
      ),
    );
    const last = graph.frozenRows(constant, 299, 300)!;
    expect(last.source).toMatchObject({ tensor: { data: Float32Array.of(598, 599) } });
    expect(graph.frozenRows(constant, 299, 300)).toBe(last);
    expect(graph.frozenRows(graph.input("x", "float32", [4, 6]), 0, 2)).toBeUndefined();
  });

  it("multiplies the halves of a linear layer separately in GEGLU, its adapters' too, and cuts anything else", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2, 3, 4]);
    const weight = graph.constant(
      tensor(
        Float32Array.from({ length: 32 }, (_, i) => i),
        [8, 4],
      ),
    );
    const operators = (y: Value) => y.graph.nodes.map(({ op }) => op);
    expect(operators(ops.geglu(ops.linear(x, weight)))).toEqual(["Linear", "Linear", "Linear", "Geglu"]);
    const adapted = ops.add(ops.linear(x, weight), ops.linear(x, graph.input("up", "float32", [8, 4])));
    const made = graph.nodes.length;
    ops.geglu(adapted);
    expect(graph.nodes.slice(made).map(({ op }) => op)).toEqual("Slice Linear Add Slice Linear Add Geglu".split(" "));
    const other = new Graph();
    expect(operators(ops.geglu(other.input("x", "float32", [2, 8])))).toEqual(["Slice", "Slice", "Geglu"]);
  });

  it("infers static shapes", () => {
    const [x, w] = inputs([2, 3, 8, 10], [5, 3, 3, 3]);
    expect(ops.conv(x!, w!, undefined, { padding: 1, stride: 2 }).shape).toEqual([2, 5, 4, 5]);
    expect(ops.upsampleNearest(x!).shape).toEqual([2, 3, 16, 20]);
    expect(ops.concat([x!, x!], 1).shape).toEqual([2, 6, 8, 10]);
    expect(ops.reshape(x!, [2, -1]).shape).toEqual([2, 240]);
  });
});

describe("refuses, with the rule and what came", () => {
  const cases: [string, () => unknown, RegExp | string][] = [
    [
      "shapes that do not broadcast",
      () => ops.add(...(inputs([2, 3], [4]) as [never, never])),
      "Add: shapes must broadcast; got a=float32[2,3], b=float32[4].",
    ],
    [
      "inner sizes that differ",
      () => ops.matMul(...(inputs([2, 3], [4, 5]) as [never, never])),
      /inner sizes must agree \(3 and 4\)/,
    ],
    [
      "a weight of other features",
      () => ops.linear(...(inputs([2, 3], [5, 4]) as [never, never])),
      /weight must be \[out, in\]/,
    ],
    [
      "a kernel for other channels",
      () => ops.conv(...(inputs([1, 3, 4, 4], [2, 4, 3, 3]) as [never, never])),
      /Conv: x must be/,
    ],
    [
      "a kernel larger than the image",
      () => ops.conv(...(inputs([1, 3, 2, 2], [2, 3, 3, 3]) as [never, never])),
      /must fit into the padded image/,
    ],
    [
      "groups that do not divide channels",
      () => {
        const [x, w] = inputs([1, 320, 4, 4], [320]);
        return x!.graph.inLayer("down_blocks.0.resnets.0.norm1", () => ops.groupNorm(x!, w!, w!, 48, 1e-5));
      },
      'groupNorm "down_blocks.0.resnets.0.norm1": groups must divide channels; got x=float32[1,320,4,4], groups=48. ' +
        "Check norm_num_groups in config.json.",
    ],
    [
      "heads that do not divide features",
      () => {
        const [q] = inputs([1, 4, 10]);
        return ops.attention(q!, q!, q!, { heads: 3 });
      },
      /heads must divide the features; got q=float32\[1,4,10\], .*heads=3/,
    ],
    ["a reshape to another size", () => ops.reshape(inputs([2, 3])[0]!, [4]), /must hold 6 elements/],
    ["a slice outside", () => ops.slice(inputs([2, 3])[0]!, 1, 2, 5), /range 2..5 must lie within the 3 elements/],
    ["an axis outside", () => ops.reduceSum(inputs([2, 3])[0]!, [2]), /axis 2 must lie within the rank 2/],
    ["values of two graphs", () => ops.add(inputs([2])[0]!, inputs([2])[0]!), /belongs to another graph/],
    [
      "an input declared twice",
      () => {
        const graph = new Graph();
        graph.input("x", "float32", [1]);
        graph.input("x", "float32", [1]);
      },
      /already an input named "x"/,
    ],
  ];
  for (const [name, run, message] of cases) it(name, () => expect(run).toThrow(message));
});

describe("discard", () => {
  it("forgets later nodes, so that equal ones are made anew", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    const kept = ops.exp(x);
    const trial = ops.neg(kept);
    graph.discard(1);
    expect(graph.nodes).toHaveLength(1);
    expect(ops.exp(x)).toBe(kept);
    expect(ops.neg(kept)).not.toBe(trial);
    expect(graph.nodes.map(({ index }) => index)).toEqual([0, 1]);
  });

  it("refuses to forget what a declared output needs", () => {
    const graph = new Graph();
    graph.output("y", ops.exp(graph.input("x", "float32", [2])));
    expect(() => graph.discard(0)).toThrow(/output "y" needs a node/);
  });
});
