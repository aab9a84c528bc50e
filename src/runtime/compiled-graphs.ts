// Graphs compiled once per key, made on first use.

import { Graph } from "../graph/index.js";
import { type CompiledGraph, compile, type RuntimeOptions } from "./compile.js";

/** A cache of compiled graphs that share their runtime options. */
export class CompiledGraphs {
  private readonly graphs = new Map<string, Promise<CompiledGraph>>();

  constructor(private readonly runtime: RuntimeOptions = {}) {}

  /** The graph of that key; `build` adds nodes and outputs when it is asked for the first time. */
  get(key: string, build: (graph: Graph) => void): Promise<CompiledGraph> {
    let known = this.graphs.get(key);
    if (!known) {
      const graph = new Graph();
      build(graph);
      known = compile(graph, this.runtime);
      this.graphs.set(key, known);
      known.catch(() => this.graphs.delete(key));
    }
    return known;
  }

  /** Frees every graph; they are compiled again when needed. */
  async release(): Promise<void> {
    const graphs = [...this.graphs.values()];
    this.graphs.clear();
    for (const graph of await Promise.allSettled(graphs)) if (graph.status === "fulfilled") await graph.value.release();
  }
}
