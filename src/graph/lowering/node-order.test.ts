import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { gradients } from "../../autodiff/index.js";
import { compile } from "../../runtime/index.js";
import "../../runtime/node.js";
import { randn } from "../../tensor/random.js";
import * as ops from "../index.js";
import { Graph, type Value } from "../index.js";

const LAYERS = 6;

/** Names of the operators that ran, in order, from ONNX Runtime's own trace. */
async function tracedOrder(graph: Graph, feeds: Record<string, ReturnType<typeof randn>>): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "fera-trace-"));
  try {
    const compiled = await compile(graph, { profilePrefix: join(folder, "trace") });
    await compiled.run(feeds);
    await compiled.release();
    const [file] = readdirSync(folder);
    const events = JSON.parse(readFileSync(join(folder, file!), "utf8")) as { cat: string; name: string; ts: number }[];
    return events
      .filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time"))
      .sort((a, b) => a.ts - b.ts)
      .map(({ name }) => name);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

it("runs the whole forward first, then the gradients from the last layer to the first", async () => {
  const graph = new Graph();
  let x = graph.input("x", "float32", [4, 8]);
  const weights: Value[] = [];
  for (let i = 0; i < LAYERS; i++) {
    const weight = graph.input(`w${i}`, "float32", [8, 8]);
    weights.push(weight);
    x = ops.tanh(ops.linear(x, weight));
  }
  const loss = ops.reduceSum(ops.mul(x, x));
  graph.output("loss", loss);
  gradients(loss, weights).forEach((gradient, i) => {
    graph.output(`g${i}`, gradient);
  });
  const feeds = Object.fromEntries([["x", randn([4, 8])], ...weights.map((_, i) => [`w${i}`, randn([8, 8])])]);
  const order = await tracedOrder(graph, feeds);

  // A linear layer is a Gemm with its weight as second input; so is each weight gradient, which are the graph's leaves.
  const tanhs = order.flatMap((name, at) => (name.startsWith("Tanh_") ? [at] : []));
  const gemms = order.flatMap((name, at) => (name.startsWith("Gemm_") ? [at] : []));
  expect(tanhs).toHaveLength(LAYERS);
  const lastForward = tanhs.at(-1)!;
  // Exactly the forward products run before the last activation; every gradient product after it.
  expect(gemms.filter((at) => at < lastForward)).toHaveLength(LAYERS);
  expect(gemms.filter((at) => at > lastForward)).toHaveLength(LAYERS);
  // Leaves were numbered in the file in reverse of the order in which they are wanted, so they run with falling numbers.
  const numbers = gemms.filter((at) => at > lastForward).map((at) => Number(/_(\d+)_kernel/.exec(order[at]!)![1]));
  expect(numbers).toEqual([...numbers].sort((a, b) => b - a));
});
