import { describe, expect, it } from "vitest";
import { gradients } from "../src/autodiff/index.js";
import * as ops from "../src/graph/index.js";
import { Graph } from "../src/graph/index.js";
import { FeRAConfig, UNet2DConditionModel } from "../src/index.js";
import { countFlops, liveBytes, rooflineSeconds, stepGraph } from "./roofline.js";

describe("countFlops", () => {
  it("counts a linear layer and its input gradient as two operations per multiply", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [5, 3]);
    const y = ops.linear(x, graph.input("w", "float32", [7, 3]));
    graph.output("dx", gradients(ops.reduceMean(y), [x])[0]!);
    graph.output("y", y);
    expect(countFlops(graph).linear).toBe(2 * (2 * 5 * 3 * 7));
  });

  it("tells 3×3 from 1×1 convolutions, forward and backward", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2, 3, 8, 8]);
    const wide = ops.conv(x, graph.input("w3", "float32", [4, 3, 3, 3]), undefined, { padding: 1, stride: 2 });
    const narrow = ops.conv(wide, graph.input("w1", "float32", [6, 4, 1, 1]));
    graph.output("dx", gradients(ops.reduceMean(ops.mul(narrow, narrow)), [x])[0]!);
    const { convolution, linear, total } = countFlops(graph);
    expect(convolution).toBe(2 * (2 * (2 * 4 * 4 * 4) * (3 * 9)));
    expect(linear).toBe(2 * (2 * (2 * 6 * 4 * 4) * 4));
    expect(total).toBe(convolution + linear);
  });

  it("counts two products of attention forward and four backward", () => {
    const graph = new Graph();
    const q = graph.input("q", "float32", [2, 5, 8]);
    const k = graph.input("k", "float32", [2, 3, 8]);
    const v = graph.input("v", "float32", [2, 3, 8]);
    const y = ops.attention(q, k, v, { heads: 2 });
    gradients(ops.reduceMean(ops.mul(y, y)), [q, k, v]).forEach((gradient, i) => {
      graph.output(`${i}`, gradient);
    });
    expect(countFlops(graph).attention).toBe(6 * (2 * 2 * 5 * 3 * 8));
  });

  it("leaves out what no output needs", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [5, 3]);
    ops.linear(x, graph.input("w", "float32", [7, 3]));
    graph.output("y", ops.neg(x));
    expect(countFlops(graph).total).toBe(0);
  });
});

describe("rooflineSeconds", () => {
  it("takes convolutions at their own rate and all else at that of products", () => {
    const flops = { convolution: 3e9, linear: 1e9, attention: 1e9, total: 5e9 };
    expect(rooflineSeconds(flops, { gemmGflops: 2, convGflops: 1 })).toBeCloseTo(4, 10);
  });
});

describe("liveBytes", () => {
  it("frees a value after its last use and keeps outputs", () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [10]);
    const chain = ops.exp(ops.neg(ops.reshape(ops.exp(x), [2, 5])));
    graph.output("y", chain);
    expect(liveBytes(graph)).toBe(2 * 40);
  });
});

describe("stepGraph", () => {
  it("is the graph of the whole step: about three times the base forward's operations, linear in the batch", async () => {
    const model = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
    const count = async (batchSize: number) =>
      countFlops(stepGraph(model, new FeRAConfig(), { batchSize, latentHeight: 8, latentWidth: 8, tokens: 7 }));
    const [one, two] = [await count(1), await count(2)];
    expect(two.convolution).toBe(2 * one.convolution);
    expect(two.attention).toBe(2 * one.attention);
    const graph = new Graph();
    const { unet, unetInputs } = await import("../src/models/unet-2d-condition/unet-2d-condition.js");
    const inputs = unetInputs(graph, model.config, { batchSize: 1, latentHeight: 8, latentWidth: 8, tokens: 7 });
    graph.output("y", unet(model.frozenScope(graph), inputs, model.config));
    const ratio = one.total / countFlops(graph).total;
    expect(ratio).toBeGreaterThan(2.5);
    expect(ratio).toBeLessThan(3.5);
  });
});
