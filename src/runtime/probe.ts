// Whether a device can compute anything at all here.

import * as ops from "../graph/index.js";
import { Graph } from "../graph/index.js";
import { tensor } from "../tensor/tensor.js";
import { compile } from "./compile.js";
import type { Device } from "./device.js";

/** Computes one small graph on a device. @returns What went wrong, in a line; undefined where nothing did. */
export async function compileProbe(device: Device): Promise<string | undefined> {
  const graph = new Graph();
  graph.output("y", ops.mul(graph.input("x", "float32", [4]), 2));
  try {
    const compiled = await compile(graph, { device });
    try {
      const { y } = await compiled.run({ x: tensor([1, 2, 3, 4]) });
      const isRight = [2, 4, 6, 8].every((value, i) => (y!.data as Float32Array)[i] === value);
      return isRight ? undefined : "it computes wrong numbers.";
    } finally {
      await compiled.release();
    }
  } catch (error) {
    // ONNX Runtime puts the source line in front.
    const [message = ""] = String(error instanceof Error ? error.message : error)
      .trim()
      .split("\n")
      .slice(-1);
    return message.replace(/^.* was false\. /, "");
  }
}
