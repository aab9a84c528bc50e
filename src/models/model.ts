// What all models share: configuration, weights, and graphs compiled once per input shape.

import { Graph } from "../graph/index.js";
import {
  FreshParameters,
  type GraphAdapters,
  type LayerAdapters,
  ModelWeights,
  type ParameterSource,
  Scope,
} from "../nn/index.js";
import { type CompiledGraph, CompiledGraphs, type RuntimeOptions } from "../runtime/index.js";
import type { Generator } from "../tensor/random.js";

/** A model: a configuration, weights, and a function from Values to Values that a subclass provides. */
export abstract class Model<Config> {
  private readonly compiledGraphs: CompiledGraphs;
  /** Graphs with adapters in them: those of one composition at a time. */
  private readonly adaptedGraphs: CompiledGraphs;
  private adaptedFor: readonly object[] = [];

  constructor(
    readonly config: Config,
    /** Frozen weights; replaced as a whole when a training puts its result back. */
    public weights: ModelWeights,
    readonly runtime: RuntimeOptions = {},
  ) {
    this.compiledGraphs = new CompiledGraphs(runtime);
    this.adaptedGraphs = new CompiledGraphs(runtime);
  }

  /** A scope that reads this model's frozen weights, with adapters on its layers where given. */
  frozenScope(graph: Graph, adapters?: LayerAdapters): Scope {
    return new Scope(graph, this.weights, adapters);
  }

  /** The compiled graph of that key, built on first use. */
  protected compiled(key: string, build: (graph: Graph) => void): Promise<CompiledGraph> {
    return this.compiledGraphs.get(key, build);
  }

  /**
   * The compiled graph of that key with adapters on its layers, built on first use.
   *
   * @param build - Gets a scope with the adapters. A run takes their `feeds` beside the model's own inputs.
   */
  protected async compiledWith(
    adapters: GraphAdapters | undefined,
    key: string,
    build: (scope: Scope) => void,
  ): Promise<CompiledGraph> {
    if (!adapters) return this.compiled(key, (graph) => build(this.frozenScope(graph)));
    const { identity } = adapters;
    if (identity.length !== this.adaptedFor.length || identity.some((part, i) => part !== this.adaptedFor[i])) {
      this.adaptedFor = identity;
      await this.adaptedGraphs.release();
    }
    return this.adaptedGraphs.get(key, (graph) => build(this.frozenScope(graph, adapters.attach(graph))));
  }

  /** Frees every compiled graph; they are compiled again when needed. */
  async release(): Promise<void> {
    await Promise.all([this.compiledGraphs.release(), this.adaptedGraphs.release()]);
  }

  /** Frees every compiled graph, at the end of the model's use. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Puts other weights in place and forgets what was compiled with the old ones. */
  async replaceWeights(weights: ModelWeights): Promise<void> {
    await this.release();
    this.weights = weights;
  }
}

/** Fresh random weights for a model that is built by `build`, drawn in the order in which it asks for them. */
export function freshWeights(build: (scope: Scope) => void, generator: Generator): ModelWeights {
  const source = new FreshParameters(generator);
  build(new Scope(new Graph(), source satisfies ParameterSource));
  const weights = new Map(
    [...source.tensors].map(([path, tensor]) => [path, { shape: tensor.shape, tensor }] as const),
  );
  return new ModelWeights(weights, "fresh weights");
}
