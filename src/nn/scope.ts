// Where a layer finds its parameters while a model is being built: a path, a source of parameters, and the adapters
// that may change a layer's output.

import type { Graph, Value } from "../graph/index.js";

/** How a parameter starts when a model is made from nothing; torch's defaults unless a layer says otherwise. */
export type Initializer =
  | { kind: "constant"; value: number }
  | { kind: "uniform"; bound: number }
  | { kind: "normal"; std: number };

/** Gives parameters by path: frozen weights, trainable inputs, or fresh random ones. */
export interface ParameterSource {
  /**
   * @param path - Full name as in the checkpoint, e.g. `mid_block.resnets.0.conv1.weight`.
   * @param shape - What the layer needs; a source that holds another shape throws.
   */
  parameter(graph: Graph, path: string, shape: readonly number[], initializer: Initializer): Value;
}

/** Adapters injected by path while a model is being built. */
export interface AdapterSet {
  /**
   * @param path - Module path of a linear layer, e.g. `…attn1.to_q`.
   * @param x - Input of the layer.
   * @param y - Its frozen output.
   * @returns The adapted output; `y` itself where the path is not adapted.
   */
  apply(path: string, x: Value, y: Value): Value;
}

/** A place in a model's module tree. */
export class Scope {
  constructor(
    readonly graph: Graph,
    private readonly parameters: ParameterSource,
    private readonly adapters?: AdapterSet,
    readonly path: string = "",
  ) {}

  /** The child module of that name; dots make deeper ones. */
  in(name: string | number): Scope {
    return new Scope(this.graph, this.parameters, this.adapters, this.path === "" ? `${name}` : `${this.path}.${name}`);
  }

  /** A parameter of this module. */
  parameter(name: string, shape: readonly number[], initializer: Initializer): Value {
    return this.parameters.parameter(this.graph, this.path === "" ? name : `${this.path}.${name}`, shape, initializer);
  }

  /** Builds a part of the graph that is named after this module. */
  build<Result>(make: () => Result): Result {
    return this.graph.inLayer(this.path, make);
  }

  /** Lets the adapters change a linear layer's output. */
  adapt(x: Value, y: Value): Value {
    return this.adapters ? this.adapters.apply(this.path, x, y) : y;
  }
}
