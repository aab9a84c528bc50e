import { expect, test } from "vitest";
import type { Graph } from "../graph/index.js";
import * as ops from "../graph/index.js";
import "./node.js";
import { tensor } from "../tensor/tensor.js";
import { CompiledGraphs } from "./compiled-graphs.js";

const times = (factor: number) => (graph: Graph) => {
  graph.output("y", ops.mul(graph.input("x", "float32", [1]), factor));
};
const x = tensor([2]);
const first = (result: Record<string, { data: ArrayLike<number | bigint> }>) => result.y!.data[0];

test("a run under way ends well though its graph is released, whether it was compiled before or not", async () => {
  const graphs = new CompiledGraphs();
  const recipe = { build: times(3) };
  const [cold] = await Promise.all([graphs.run("product", recipe, { x }), graphs.release()]);
  await graphs.run("product", recipe, { x });
  const [warm] = await Promise.all([graphs.run("product", recipe, { x }), graphs.release()]);
  expect([cold, warm].map(first)).toEqual([6, 6]);
});

test("runs that overlap get the graph of what each was built from", async () => {
  const graphs = new CompiledGraphs();
  const results = await Promise.all(
    [3, 4, 3].map((factor) => graphs.run("product", { build: times(factor), builtFrom: [factor] }, { x })),
  );
  expect(results.map(first)).toEqual([6, 8, 6]);
});

test("a graph that cannot be built is tried again", async () => {
  const graphs = new CompiledGraphs();
  const build = () => {
    throw new Error("not now");
  };
  await expect(graphs.run("product", { build }, { x })).rejects.toThrow("not now");
  expect(first(await graphs.run("product", { build: times(5) }, { x }))).toBe(10);
});
