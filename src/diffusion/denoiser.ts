// What the trainer, adapters, evaluation and conversion know of a denoising model: any class with these methods.

import type { Graph, Value } from "../graph/index.js";
import type { LayerAdapters, ModelWeights, Scope } from "../nn/index.js";
import type { RuntimeOptions } from "../runtime/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ConditioningInputs } from "./conditioning.js";

/** Sizes that a denoiser's graph is built for. Static: another size is another graph. */
export interface DenoiserShape {
  batchSize: number;
  latentHeight: number;
  latentWidth: number;
  /** Tokens of the text states. */
  tokens: number;
  /** Further sizes that a family's conditioning has, e.g. `timeIds`. */
  readonly [name: string]: number | undefined;
}

/** One batch for a denoiser. B batch. */
export interface DenoiserInputs extends ConditioningInputs {
  /** Noisy latents `[B, C, H, W]`. */
  latents: Tensor;
  /** int64, int32 or float32 `[B]`, or a single one for all. */
  timesteps: Tensor;
}

/** A frozen model that predicts noise, velocity or flow from noisy latents. */
export interface Denoiser {
  /** diffusers' class name, for messages. */
  readonly className: string;
  readonly weights: ModelWeights;
  readonly runtime: RuntimeOptions;
  /** Channels of its latents. */
  readonly latentChannels: number;
  /** The layers that are usually adapted, by the ends of their paths, where these are not the attentions' of a UNet. */
  readonly usualTargets?: readonly string[];
  /** The smallest shape that it can be built for; building runs nothing. */
  readonly smallestShape: DenoiserShape;
  /**
   * Checks a batch and gives the shape to build for.
   *
   * @throws {ShapeError} That names the input, or the option that asks for one that is missing.
   */
  shapeOf(inputs: DenoiserInputs): DenoiserShape;
  /** The tensors for {@link declareInputs}, by name; timesteps as float32, a single one repeated. */
  feedsOf(inputs: DenoiserInputs): Record<string, Tensor>;
  /**
   * Declares the graph's inputs: `latents`, `timesteps`, and what the conditioning is called.
   *
   * @param without - Names that are left out: who builds the graph has Values for them.
   */
  declareInputs(graph: Graph, shape: DenoiserShape, without?: readonly string[]): Record<string, Value>;
  /** The model as a function from Values to Values. @returns `[B, C, H, W]`. */
  build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value;
  /** A scope that reads the frozen weights, with adapters on its layers where given. */
  frozenScope(graph: Graph, adapters?: LayerAdapters): Scope;
  /** The frozen model's prediction. @throws {ShapeError} If an input does not fit. */
  predict(inputs: DenoiserInputs): Promise<Tensor<"float32">>;
  /** Frees what was compiled; it is compiled again when needed. */
  release(): Promise<void>;
}
