// What of a graph would run on the CPU though it is meant for another device.

import type { Graph } from "../graph/index.js";
import { type Fallbacks, fallbacksOf, type ListedProvider, lower, PROVIDER_OPERATORS } from "../onnx/index.js";

export type { Fallbacks, ListedProvider };

/** Lowers a graph as GPUs get it, and holds it against the published tables of all listed providers. */
export function operatorFallbacks(graph: Graph): Fallbacks[] {
  const { bytes } = lower(graph, "portable");
  return (Object.keys(PROVIDER_OPERATORS) as ListedProvider[]).map((provider) => fallbacksOf(bytes, provider));
}
