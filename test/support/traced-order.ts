// The order in which ONNX Runtime really ran a graph's nodes, from its own trace.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Graph } from "../../src/graph/index.js";
import { compile } from "../../src/runtime/index.js";
import "../../src/runtime/node.js";
import type { Tensor } from "../../src/tensor/tensor.js";

/** Runs a graph once on the CPU. @returns Names of the ONNX nodes, in order. */
export async function tracedOrder(graph: Graph, feeds: Record<string, Tensor>): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "fera-trace-"));
  try {
    const compiled = await compile(graph, { device: "cpu", profilePrefix: join(folder, "trace") });
    await compiled.run(feeds);
    await compiled.release();
    const [file] = readdirSync(folder);
    const events = JSON.parse(readFileSync(join(folder, file!), "utf8")) as { cat: string; name: string; ts: number }[];
    return events
      .filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time"))
      .sort((a, b) => a.ts - b.ts)
      .map(({ name }) => name.slice(0, -"_kernel_time".length));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
