import { describe, expect, it } from "vitest";
import { onnxNodes } from "../../test/support/onnx-nodes.js";
import { tracedOrder } from "../../test/support/traced-order.js";
import { gradients } from "../autodiff/index.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import "../storage/node.js";
import { UNet2DConditionModel, unet, unetInputs } from "../models/unet-2d-condition/unet-2d-condition.js";
import { conv2d, embedding, FreshParameters, groupNorm, layerNorm, linear, Scope } from "../nn/index.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { lower } from "./index.js";

const namesOf = (graph: Graph, target: "cpu" | "portable" = "cpu"): string[] =>
  onnxNodes(lower(graph, target).bytes).map(({ name }) => name);

/** A norm, a projection and attention over it, inside modules. */
function network(recompute: boolean) {
  const graph = new Graph();
  const scope = new Scope(graph, new FreshParameters(new Generator(0)), undefined, "blocks.0");
  const x = graph.input("x", "float32", [1, 6, 8]);
  const scale = graph.input("scale", "float32", []);
  let h: Value = ops.mul(x, scale);
  for (const name of ["attn1", "attn2"]) {
    const attention = scope.in(name);
    const normalized = layerNorm(scope.in(`norm_${name}`), h);
    const [q, k, v] = ["to_q", "to_k", "to_v"].map((part) => linear(attention.in(part), normalized, 8)) as [
      Value,
      Value,
      Value,
    ];
    h = ops.add(h, linear(attention.in("to_out.0"), ops.attention(q, k, v, { heads: 2 }), 8));
  }
  const loss = graph.inLayer("loss", () => ops.reduceMean(ops.mul(h, h)));
  graph.output("loss", loss);
  graph.output("gradient", gradients(loss, [scale], { recompute })[0]!);
  return { graph, feeds: { x: randn([1, 6, 8]), scale: tensor([1], []) } };
}

describe("ONNX nodes", () => {
  it("are named after the layer of the model and the operator that they come from", async () => {
    const model = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
    const graph = new Graph();
    const inputs = unetInputs(graph, model.config, { batchSize: 1, latentHeight: 8, latentWidth: 8, tokens: 7 });
    graph.output("y", unet(model.frozenScope(graph), inputs, model.config));
    const block = "down_blocks.0.attentions.0.transformer_blocks.0";
    expect(namesOf(graph, "portable")).toEqual(
      expect.arrayContaining([
        "conv_in/Conv",
        "time_embedding.linear_1/Gemm",
        "down_blocks.0.resnets.0.conv1/Conv",
        `${block}.attn1.to_q/Gemm`,
        `${block}.attn1/Softmax`,
        `${block}.attn2.to_out.0/Gemm`,
        `${block}.ff.net.0.proj/Gelu`,
        "down_blocks.0.attentions.0/Add",
      ]),
    );
    expect(namesOf(graph)).toContain(`${block}.attn1/MultiHeadAttention`);
  });

  it("of gradients and of recomputed values say so in front of the layer", () => {
    const names = namesOf(network(true).graph);
    expect(names).toContain("gradient/blocks.0.attn2.to_out.0/MatMul");
    expect(names).toContain("gradient/blocks.0.attn1/Softmax");
    expect(names).toContain("gradient/loss/Mul");
    expect(names.some((name) => name.startsWith("recompute/blocks.0.attn"))).toBe(true);
    expect(namesOf(network(false).graph).filter((name) => name.startsWith("recompute/"))).toEqual([]);
  });

  it("of another phase say so, and begin outside the layer that the phase begins in", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    const loss = graph.inLayer("loss", () => {
      const base = graph.inPhase("base", () => ops.exp(graph.inLayer("proj", () => ops.neg(x))));
      return ops.reduceMean(base);
    });
    graph.output("loss", loss);
    expect(namesOf(graph)).toEqual(["base/proj/Neg", "base/proj/Exp", "loss/ReduceMean"]);
  });

  it("have names of their own, which ONNX Runtime's profile shows", async () => {
    const { graph, feeds } = network(true);
    const names = namesOf(graph);
    expect(new Set(names).size).toBe(names.length);
    expect(new Set(await tracedOrder(graph, feeds))).toEqual(new Set(names));
  });
});

describe("a layer that cannot be built names its path", () => {
  const build = (make: (scope: Scope, graph: Graph) => unknown) => () => {
    const graph = new Graph();
    make(new Scope(graph, new FreshParameters(new Generator(0)), undefined, "mid_block.resnets.0"), graph);
  };
  const cases: [string, () => void, string][] = [
    [
      "linear",
      build((scope, graph) => linear(scope.in("proj"), graph.input("x", "int64", [2, 3]), 4)),
      'Linear "mid_block.resnets.0.proj": inputs must be float32; got x=int64[2,3].',
    ],
    [
      "conv2d",
      build((scope, graph) => conv2d(scope.in("conv1"), graph.input("x", "float32", [2, 3, 4]), 4, 3)),
      'conv2d "mid_block.resnets.0.conv1": x must be [B, C, H, W]; got x=float32[2,3,4].',
    ],
    [
      "a kernel that does not fit",
      build((scope, graph) => conv2d(scope.in("conv1"), graph.input("x", "float32", [2, 3, 2, 2]), 4, 3)),
      'Conv "mid_block.resnets.0.conv1": the kernel must fit into the padded image; got x=float32[2,3,2,2], weight=',
    ],
    [
      "groupNorm",
      build((scope, graph) => groupNorm(scope.in("norm1"), graph.input("x", "float32", [2, 6, 4]), 4, 1e-5)),
      'groupNorm "mid_block.resnets.0.norm1": groups must divide channels; got x=float32[2,6,4], groups=4.',
    ],
    [
      "layerNorm",
      build((scope, graph) => layerNorm(scope.in("norm"), graph.input("x", "float32", []))),
      'layerNorm "mid_block.resnets.0.norm": x must be [..., features]; got x=float32[].',
    ],
    [
      "embedding",
      build((scope, graph) => embedding(scope.in("positions"), graph.input("ids", "float32", [2]), 5, 4)),
      'Gather "mid_block.resnets.0.positions": indices must be integers; got indices=float32[2].',
    ],
    [
      "attention between its projections",
      build((scope, graph) => {
        const x = graph.input("x", "float32", [1, 4, 10]);
        const [q, k] = ["attn.to_q", "attn.to_k"].map((name) => linear(scope.in(name), x, 10)) as [Value, Value];
        return ops.attention(q, k, k, { heads: 3 });
      }),
      'attention "mid_block.resnets.0.attn": heads must divide the features; got q=float32[1,4,10], k=',
    ],
  ];
  for (const [name, run, message] of cases) it(name, () => expect(run).toThrow(message));
});

it("a gradient that does not exist names the layer whose operator has none", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2]);
  const y = graph.inLayer("encoder.round", () => ops.cast(ops.cast(x, "float16"), "float32"));
  expect(() => gradients(ops.reduceSum(y), [x])).toThrow(/Cast "encoder.round" has no gradient/);
});
