import { expect, it } from "vitest";
import * as ops from "../graph/index.js";
import { Graph } from "../graph/index.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { compile } from "./compile.js";
import "./node.js";
import { rehearsedBytes } from "./rehearsal.js";

const MB = 1e6;

/** y = exp(x) + 1, of so many values. */
function graphOf(size: number): Graph {
  const graph = new Graph();
  graph.output("y", ops.add(ops.exp(graph.input("x", "float32", [size])), 1));
  return graph;
}

it("adds up what is loaded at the same time, and nothing that was released", async () => {
  const load = () => compile(graphOf(10 * MB));
  const one = await rehearsedBytes(async () => (await load()).release());
  // 40 MB of one value, which the sum is written over.
  expect(one / MB).toBeGreaterThan(40);
  expect(one / MB).toBeLessThan(60);
  const inTurn = await rehearsedBytes(async () => {
    for (let i = 0; i < 3; i++) await (await load()).release();
  });
  expect(inTurn).toBe(one);
  const together = await rehearsedBytes(async () => {
    for (const each of await Promise.all([load(), load()])) await each.release();
  });
  expect(together).toBe(2 * one);
});

it("computes nothing: results are zeros; other work at the same time is real", async () => {
  const real = compile(graphOf(2));
  let rehearsed: Awaited<typeof real> | undefined;
  await rehearsedBytes(async () => {
    rehearsed = await compile(graphOf(2));
    expect((await rehearsed.run({ x: tensor([1, 2]) })).y).toEqual(zeros([2]));
  });
  const { y } = await (await real).run({ x: tensor([0, 1]) });
  expect((y!.data as Float32Array)[0]).toBe(2);
  await expect(rehearsed!.run({ x: tensor([1, 2]) })).rejects.toThrow(/was built for a rehearsal/);
  await (await real).release();
});
