// Sources of parameters: weights as loaded, trainable inputs, and fresh random values.

import { FormatError, ShapeError } from "../errors.js";
import { type FileRange, type Graph, sameShape, type Value } from "../graph/index.js";
import { type Generator, rand, randn } from "../tensor/random.js";
import { type DType, sizeOf, type Tensor, tensor, zeros } from "../tensor/tensor.js";
import type { Initializer, ParameterSource } from "./scope.js";

/** One weight: in memory, or where it lies in a file. */
export type Weight =
  | { shape: readonly number[]; tensor: Tensor<"float32"> }
  | { shape: readonly number[]; dtype: DType; range: FileRange };

/** A model's weights by name, and where they came from for messages. */
export class ModelWeights implements ParameterSource {
  constructor(
    readonly weights: ReadonlyMap<string, Weight>,
    readonly source: string,
  ) {}

  /**
   * How large layers are kept in few bits, if they are. With `int8`, what they are multiplied with is rounded, too, when the model
   * runs.
   */
  get quantization(): "int8" | "nf4" | undefined {
    for (const weight of this.weights.values()) {
      if ("range" in weight && typeof weight.range.stored === "object") return weight.range.stored.type;
    }
    return undefined;
  }

  /** Bytes of all weights as float32. */
  get float32Bytes(): number {
    return [...this.weights.values()].reduce((sum, { shape }) => sum + 4 * sizeOf(shape), 0);
  }

  /** The frozen weight of that path. @throws {FormatError} If it is missing or of another shape. */
  parameter(graph: Graph, path: string, shape: readonly number[]): Value {
    const weight = checkedWeight(this.weights.get(path), path, shape, this.source);
    if ("tensor" in weight) return graph.constant(weight.tensor);
    return graph.file(path, weight.dtype, shape, weight.range);
  }
}

function checkedWeight(weight: Weight | undefined, path: string, shape: readonly number[], source: string): Weight {
  if (!weight) {
    throw new FormatError(
      source,
      `the weight "${path}" is missing; the configuration needs it as [${shape.join(",")}].`,
    );
  }
  if (!sameShape(weight.shape, shape)) {
    throw new FormatError(
      source,
      `the weight "${path}" is [${weight.shape.join(",")}]; the configuration needs [${shape.join(",")}].`,
    );
  }
  return weight;
}

/** Every parameter becomes a graph input of its own path: whole-model training. */
export class TrainableParameters implements ParameterSource {
  /** The graph inputs declared so far, by path. */
  readonly values = new Map<string, Value>();

  constructor(
    private readonly tensors: ReadonlyMap<string, Tensor<"float32">>,
    private readonly source: string,
    private readonly prefix = "",
  ) {}

  parameter(graph: Graph, path: string, shape: readonly number[]): Value {
    const name = this.prefix + path;
    const known = this.values.get(name);
    if (known) return known;
    const current = this.tensors.get(name);
    checkedWeight(current && { shape: current.shape, tensor: current }, name, shape, this.source);
    const value = graph.input(name, "float32", shape);
    this.values.set(name, value);
    return value;
  }
}

/** Draws every parameter as its layer initializes it, in the order in which the model asks. */
export class FreshParameters implements ParameterSource {
  readonly tensors = new Map<string, Tensor<"float32">>();

  constructor(private readonly generator: Generator) {}

  parameter(graph: Graph, path: string, shape: readonly number[], initializer: Initializer): Value {
    let fresh = this.tensors.get(path);
    if (fresh && !sameShape(fresh.shape, shape)) {
      throw new ShapeError(`"${path}" is asked for as [${shape.join(",")}] and as [${fresh.shape.join(",")}].`);
    }
    if (!fresh) {
      fresh = draw(shape, initializer, this.generator);
      this.tensors.set(path, fresh);
    }
    return graph.constant(fresh);
  }
}

/** Draws a tensor. */
export function draw(shape: readonly number[], initializer: Initializer, generator: Generator): Tensor<"float32"> {
  if (initializer.kind === "constant") {
    const filled = zeros(shape, "float32");
    filled.data.fill(initializer.value);
    return filled;
  }
  if (initializer.kind === "values") return tensor(initializer.make(), shape);
  if (initializer.kind === "uniform") {
    return tensor(
      rand(shape, { generator }).data.map((value) => (2 * value - 1) * initializer.bound),
      shape,
    );
  }
  return tensor(
    randn(shape, { generator }).data.map((value) => value * initializer.std),
    shape,
  );
}
