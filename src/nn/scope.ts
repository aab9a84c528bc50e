// Where a layer finds its parameters while a model is being built: a path, a source of parameters, and the adapters
// that may change a layer's output.

import type { ConvolutionOptions, Graph, Value } from "../graph/index.js";
import type { Tensor } from "../tensor/tensor.js";

/** How a parameter starts when a model is made from nothing; torch's defaults unless a layer says otherwise. */
export type Initializer =
  | { kind: "constant"; value: number }
  | { kind: "uniform"; bound: number }
  | { kind: "normal"; std: number }
  /** Known numbers, such as a table of positions. */
  | { kind: "values"; make: () => Float32Array };

/** Gives parameters by path: frozen weights, trainable inputs, or fresh random ones. */
export interface ParameterSource {
  /**
   * @param path - Full name as in the checkpoint, e.g. `mid_block.resnets.0.conv1.weight`.
   * @param shape - What the layer needs; a source that holds another shape throws.
   */
  parameter(graph: Graph, path: string, shape: readonly number[], initializer: Initializer): Value;
}

/** A linear or convolution layer as adapters see it. */
export interface AdaptableLayer {
  /** Module path, e.g. `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`. */
  path: string;
  kind: "linear" | "convolution";
  /** The frozen weight: `[out, in]`, or `[out, in, k, k]`. */
  weight: Value;
  /** `[out]`, where the layer has one. */
  bias?: Value | undefined;
  /** Of a convolution. */
  stride?: number;
  padding?: ConvolutionOptions["padding"];
}

/** Adapters injected by path while a model is being built. */
export interface LayerAdapters {
  /**
   * @param x - Input of the layer, `[B, ..., in]`, or `[B, in, H, W]` of a convolution.
   * @param y - Its frozen output.
   * @returns The adapted output; `y` itself where the layer is not adapted.
   */
  apply(layer: AdaptableLayer, x: Value, y: Value): Value;
}

/** Adapters for the graphs that a model compiles itself, such as a text encoder's. */
export interface GraphAdapters {
  /** What is part of the graphs: they are compiled anew where one of these is another. */
  readonly identity: readonly unknown[];
  /** Declares what the adapters need in a graph. */
  attach(graph: Graph): LayerAdapters;
  /** The values of the inputs that {@link attach} declares. */
  readonly feeds: Readonly<Record<string, Tensor>>;
}

/** A place in a model's module tree. */
export class Scope {
  constructor(
    readonly graph: Graph,
    private readonly parameters: ParameterSource,
    private readonly adapters?: LayerAdapters,
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

  /** Lets the adapters change a layer's output. */
  adapt(layer: Omit<AdaptableLayer, "path">, x: Value, y: Value): Value {
    return this.adapters ? this.adapters.apply({ path: this.path, ...layer }, x, y) : y;
  }
}
