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
import { CompiledGraphs, type RuntimeOptions } from "../runtime/index.js";
import type { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";

/** A model: a configuration, weights, and a function from Values to Values that a subclass provides. */
export abstract class Model<Config> {
  private readonly compiledGraphs: CompiledGraphs;
  /** Graphs with adapters in them: those of one composition at a time. */
  private readonly adaptedGraphs: CompiledGraphs;

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

  /** Runs the graph of that key, built and compiled on first use. */
  protected run(
    key: string,
    build: (graph: Graph) => void,
    feeds: Record<string, Tensor>,
  ): Promise<Record<string, Tensor>> {
    return this.compiledGraphs.run(key, { build, builtFrom: [this.weights] }, feeds);
  }

  /**
   * Runs the graph of that key with adapters on its layers, built and compiled on first use.
   *
   * @param build - Gets a scope with the adapters.
   * @param feeds - The model's own inputs.
   */
  protected runWith(
    adapters: GraphAdapters | undefined,
    key: string,
    build: (scope: Scope) => void,
    feeds: Record<string, Tensor>,
  ): Promise<Record<string, Tensor>> {
    if (!adapters) return this.run(key, (graph) => build(this.frozenScope(graph)), feeds);
    const recipe = {
      build: (graph: Graph) => build(this.frozenScope(graph, adapters.attach(graph))),
      builtFrom: [this.weights, ...adapters.identity],
    };
    return this.adaptedGraphs.run(key, recipe, { ...adapters.feeds, ...feeds });
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

  /** Puts other weights in place and forgets what was compiled with the old ones, once what runs with them is over. */
  async replaceWeights(weights: ModelWeights): Promise<void> {
    // First, so that what runs meanwhile has the new ones.
    this.weights = weights;
    await this.release();
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
