import { expect, it } from "vitest";
import { Graph } from "../../../graph/index.js";
import { compile } from "../../../runtime/index.js";
import "../../../runtime/node.js";
import { tensor } from "../../../tensor/tensor.js";
import { FeRAConfig } from "../fera-config.js";
import { largestGates } from "./sparse-router.js";

const GATES = [0.5, 0.1, 0.3, 0.1, 0.25, 0.25, 0.25, 0.25];

it("keeps the largest gates, divided by their sum", async () => {
  const graph = new Graph();
  graph.output("kept", largestGates(graph.constant(tensor(GATES, [2, 4])), 2));
  const compiled = await compile(graph);
  const { data } = (await compiled.run({})).kept!;
  const expected = [0.625, 0, 0.375, 0, 0.25, 0.25, 0.25, 0.25];
  for (const [i, value] of expected.entries()) expect(Number(data[i])).toBeCloseTo(value, 6);
  await compiled.release();
});

it("is at most as many as there are experts, and is left out of files where it is not asked for", () => {
  expect(() => new FeRAConfig({ topExperts: 4 })).toThrow("topExperts must be at most numExperts; got 4 of 3 experts.");
  expect(new FeRAConfig().toJSON()).not.toHaveProperty("top_experts");
  const config = new FeRAConfig({ topExperts: 2 });
  expect(FeRAConfig.fromJSON(config.toJSON())).toEqual(config);
});
