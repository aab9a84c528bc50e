import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { gradients } from "../src/autodiff/index.js";
import * as ops from "../src/graph/index.js";
import { Graph } from "../src/graph/index.js";
import { compile } from "../src/runtime/index.js";
import "../src/runtime/node.js";
import { randn } from "../src/tensor/random.js";
import { takeProfile } from "./profile-summary.js";

it("adds up a run's kernels by phase and by layer", async () => {
  const folder = mkdtempSync(join(tmpdir(), "fera-profile-"));
  try {
    const graph = new Graph();
    const [x, w] = [graph.input("x", "float32", [4, 8]), graph.input("w", "float32", [8, 8])];
    const y = graph.inLayer("encoder.proj", () => ops.tanh(ops.linear(x, w)));
    const loss = graph.inLayer("loss", () => ops.reduceMean(ops.mul(y, y)));
    graph.output("loss", loss);
    graph.output("dw", gradients(loss, [w])[0]!);
    const prefix = join(folder, "trace");
    const compiled = await compile(graph, { device: "cpu", profilePrefix: prefix });
    for (let run = 0; run < 2; run++) await compiled.run({ x: randn([4, 8]), w: randn([8, 8]) });
    await compiled.release();

    const { operators, phases, layers } = takeProfile(prefix, 2);
    const calls = (rows: { calls: number }[]) => rows.reduce((sum, row) => sum + row.calls, 0);
    expect(calls(phases)).toBe(calls(operators));
    expect(calls(layers)).toBe(calls(operators));
    expect(phases.map(({ name }) => name).sort()).toEqual(["forward", "gradient", "shapes"]);
    expect(layers.map(({ name }) => name)).toEqual(expect.arrayContaining(["encoder.proj", "loss"]));
    // A product and a tanh forward; the gradient of both has more nodes.
    expect(layers.find(({ name }) => name === "encoder.proj")!.calls).toBeGreaterThan(4);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
