import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import * as ops from "../graph/index.js";
import { Graph } from "../graph/index.js";
import { openSafetensors, writeSafetensors } from "../storage/index.js";
import { randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { compile } from "./compile.js";
import "./node.js";

const folder = mkdtempSync(join(tmpdir(), "fera-runtime-"));
afterAll(() => rmSync(folder, { recursive: true }));

function doubling(): Graph {
  const graph = new Graph();
  graph.output("y", ops.mul(graph.input("x", "float32", [2]), 2));
  return graph;
}

describe("a compiled graph", () => {
  it("runs as often as asked", async () => {
    const compiled = await compile(doubling());
    for (const x of [1, 2, 3]) {
      const { y } = await compiled.run({ x: tensor([x, -x]) });
      expect([...(y!.data as Float32Array)]).toEqual([2 * x, -2 * x]);
    }
    await compiled.release();
  });

  it("names what is wrong with its inputs", async () => {
    const compiled = await compile(doubling());
    await expect(compiled.run({})).rejects.toThrow(/input "x" is missing; expected float32\[2\]/);
    await expect(compiled.run({ x: tensor([1, 2, 3]) })).rejects.toThrow(/must be float32\[2\]; got float32\[3\]/);
    await expect(compiled.run({ x: tensor([1, 2], [2], "int32") })).rejects.toThrow(/got int32\[2\]/);
    await expect(compiled.run({ x: tensor([1, 2]), z: tensor([1]) })).rejects.toThrow(
      /unknown input "z"; inputs are x/,
    );
    await compiled.release();
    await expect(compiled.run({ x: tensor([1, 2]) })).rejects.toThrow(/was released/);
  });

  it("leaves the event loop free while it runs", async () => {
    const graph = new Graph();
    let x = graph.input("x", "float32", [600, 600]);
    for (let i = 0; i < 40; i++) x = ops.mul(ops.matMul(x, graph.inputs.get("x")!), 1 / 600 + i * 1e-9);
    graph.output("y", ops.reduceSum(x));
    const compiled = await compile(graph);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await compiled.run({ x: randn([600, 600]) });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
    await compiled.release();
  });
});

describe("weights in files", () => {
  it("are read in place, also through a symbolic link that leaves the folder", async () => {
    const path = join(folder, "weights.safetensors");
    const weight = randn([3, 2]);
    await writeSafetensors(path, { pad: tensor([1, 2, 3]), weight });
    const link = join(mkdtempSync(join(folder, "hub-")), "model.safetensors");
    symlinkSync(path, link);
    for (const place of [path, link]) {
      const opened = await openSafetensors(place);
      const { offset, length } = opened.entries.get("weight")!;
      const graph = new Graph();
      const value = graph.file("weight", "float32", [3, 2], { path: opened.path, offset, length });
      graph.output("y", ops.linear(graph.input("x", "float32", [1, 2]), value));
      const compiled = await compile(graph);
      const { y } = await compiled.run({ x: tensor([1, 0], [1, 2]) });
      const firstColumn = [0, 1, 2].map((row) => weight.data[2 * row]);
      expect([...(y!.data as Float32Array)]).toEqual(firstColumn);
      await compiled.release();
    }
  });

  it("from different folders work in one graph", async () => {
    const graph = new Graph();
    let sum = graph.input("x", "float32", [2]);
    for (const name of ["a", "b"]) {
      const path = join(mkdtempSync(join(folder, `${name}-`)), "weights.safetensors");
      await writeSafetensors(path, { bias: tensor(name === "a" ? [1, 2] : [10, 20]) });
      const opened = await openSafetensors(path);
      const { offset, length } = opened.entries.get("bias")!;
      sum = ops.add(sum, graph.file(name, "float32", [2], { path: opened.path, offset, length }));
    }
    graph.output("y", sum);
    const compiled = await compile(graph);
    const { y } = await compiled.run({ x: tensor([0, 0]) });
    expect([...(y!.data as Float32Array)]).toEqual([11, 22]);
    await compiled.release();
  });

  it("keep one name under two shapes", async () => {
    const path = join(folder, "kernel.safetensors");
    await writeSafetensors(path, { kernel: randn([4, 3, 1, 1]) });
    const opened = await openSafetensors(path);
    const { offset, length } = opened.entries.get("kernel")!;
    const graph = new Graph();
    const kernel = graph.file("kernel", "float32", [4, 3, 1, 1], { path: opened.path, offset, length });
    graph.output("a", ops.reduceSum(kernel));
    graph.output("b", ops.reduceSum(ops.reshape(kernel, [4, 3])));
    const compiled = await compile(graph);
    const { a, b } = await compiled.run({});
    expect((a!.data as Float32Array)[0]).toBeCloseTo((b!.data as Float32Array)[0]!, 5);
    await compiled.release();
  });
});

describe("devices", () => {
  it("that do not exist are refused with those that do", async () => {
    await expect(compile(doubling(), { device: "tpu" as never })).rejects.toThrow(/must be one of auto, cpu, webgpu/);
  });

  it("that this machine lacks are refused with those that it has", async () => {
    const absent = process.platform === "darwin" ? "dml" : "coreml";
    await expect(compile(doubling(), { device: absent })).rejects.toThrow(/is not offered.*available: .*cpu/s);
  });

  it("auto finds one", async () => {
    const compiled = await compile(doubling(), { device: "auto" });
    expect(["cpu", "cuda"]).toContain(compiled.device);
    await compiled.release();
  });
});
