// Graphs compiled once per key, on first use, and freed when nothing runs them any more.

import { Graph } from "../graph/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { type CompiledGraph, compile, type RuntimeOptions } from "./compile.js";

/** How {@link CompiledGraphs.run} makes a graph. */
export interface GraphRecipe {
  /** Adds nodes and outputs; called when the graph is not there yet. */
  build(graph: Graph): void;
  /** What all graphs of the cache were built from; when one of these is another object, they are compiled anew. */
  builtFrom?: readonly unknown[];
}

/** A cache of compiled graphs that share their runtime options. */
export class CompiledGraphs {
  private readonly graphs = new Map<string, Promise<CompiledGraph>>();
  private builtFrom: readonly unknown[] = [];
  /** When all that was released is free, so that what replaces it does not need memory beside it. */
  private freed: Promise<unknown> = Promise.resolve();

  constructor(private readonly runtime: RuntimeOptions = {}) {}

  /**
   * Runs the graph of that key.
   *
   * Which graph it is, is decided when this is called: what is released or replaced afterwards stays until the run is over.
   *
   * @throws As `compile` and `CompiledGraph.run`.
   */
  async run(
    key: string,
    { build, builtFrom = [] }: GraphRecipe,
    feeds: Record<string, Tensor>,
  ): Promise<Record<string, Tensor>> {
    // Nothing is awaited before the graph is in place: runs that overlap would take each other's graphs.
    if (builtFrom.length !== this.builtFrom.length || builtFrom.some((part, i) => part !== this.builtFrom[i])) {
      this.builtFrom = builtFrom;
      this.release().catch(() => undefined);
    }
    const compiled = this.graphs.get(key) ?? this.add(key, build);
    // Started before anything that a later release does with the graph, which waits for it.
    return compiled.then((graph) => graph.run(feeds));
  }

  /** Frees every graph once its runs are over; they are compiled again when needed. */
  release(): Promise<void> {
    const released = [...this.graphs.values()].map((compiled) =>
      compiled.then(
        (graph) => graph.release(),
        () => undefined,
      ),
    );
    this.graphs.clear();
    const freed = Promise.all([this.freed, ...released]).then(() => undefined);
    this.freed = freed.catch(() => undefined);
    return freed;
  }

  private add(key: string, build: (graph: Graph) => void): Promise<CompiledGraph> {
    const graph = new Graph();
    build(graph);
    const compiled = this.freed.then(() => compile(graph, this.runtime));
    this.graphs.set(key, compiled);
    compiled.catch(() => {
      if (this.graphs.get(key) === compiled) this.graphs.delete(key);
    });
    return compiled;
  }
}
