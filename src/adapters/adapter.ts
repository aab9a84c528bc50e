// What a kind of adapter is: FeRA, LoRA and the others each implement this in a file of their own.

import type { Graph, Value } from "../graph/index.js";
import type { LayerAdapters } from "../nn/index.js";
import type { DeviceResident } from "../runtime/index.js";
import type { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import type { TargetLayer } from "./target-layers.js";

/** A checked, immutable configuration; `adapterType` names the kind in files and on the command line. */
export interface AdapterConfig {
  readonly adapterType: string;
  /** A list of names, or a pattern of paths. */
  readonly targetModules: readonly string[] | string;
  /** The options under their names in files. */
  toJSON(): Record<string, unknown>;
}

/** What an adapter may look at while a model is being built. */
export interface AttachInputs {
  /** Noisy latents `[B, C, H, W]`; absent in a text encoder. */
  latents?: Value;
  /** float32 `[B]`; absent in a text encoder. */
  timesteps?: Value;
  /** A factor on what the adapter changes, a scalar. */
  scale?: Value;
  /** Whether dropout acts. */
  training?: boolean;
}

/** What a denoiser's pass gives for the losses. */
export interface AdaptedPrediction {
  /** With adapters, `[B, C, H, W]`. */
  output: Value;
  /** Noise, velocity or flow, of the same shape. */
  target: Value;
  /** Builds the pass without adapters when asked for; the same Value each time. */
  base: () => Value;
  /** How much each sample counts, float32 `[B]`; 1 by default. */
  lossWeights?: Value;
  /** How much each place counts, float32 `[B, 1, H, W]`; 1 by default. */
  lossMask?: Value;
}

/** An adapter in a graph. */
export interface AttachedAdapter {
  layers: LayerAdapters;
  /** Dropout masks that a run must feed, by input name; complete once the model is built. */
  masks: ReadonlyMap<string, readonly number[]>;
  /** Values that the model is built with beside its declared inputs, by name. */
  inputs?: Readonly<Record<string, Value>>;
  /** What a prediction reports beside its output, such as `energies [B, K]` and `gates [B, E]`. */
  reports: Readonly<Record<string, Value>>;
  /** The losses that the adapter's {@link Adapter.lossNames} name, scalars with their weights applied; undefined for weight 0. */
  lossTerms?(prediction: AdaptedPrediction): Record<string, Value | undefined>;
}

/** A weight that an adapter is fused into. */
export interface WeightFusion {
  /** The layer's path. */
  path: string;
  /** The frozen weight, `[out, in]` or `[out, in, k, k]`. */
  frozen: Value;
  /** The weight with the adapters that came before. */
  current: Value;
  /** The adapter's trained tensors, by the names of its `shapes`. */
  parameters: ReadonlyMap<string, Value>;
  /** The adapter's scale. */
  scale: number;
}

/**
 * One kind of adapter on the layers of one model. Has no state: parameters are given to it.
 *
 * Trained tensors may be stacked for speed; a state dict has them as files name them.
 */
export interface Adapter<Config extends AdapterConfig = AdapterConfig> {
  readonly config: Config;
  readonly layers: readonly TargetLayer[];
  /** The trained tensors' names and shapes. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Losses of its own beside the objective's. */
  readonly lossNames: readonly string[];
  /** Whether one of them is of the whole batch, and not a mean over samples: such a batch cannot be computed in parts. */
  readonly hasWholeBatchLoss?: boolean;
  /** Fresh parameters, drawn so that the model predicts as before. */
  initialize(generator: Generator): Map<string, Tensor<"float32">>;
  /**
   * Fresh values of the trained tensors that follow from the model's frozen weights, as nodes of a graph over these; the
   * others are as {@link initialize} draws them. Absent where there is none.
   *
   * @param weightOf - Gives a layer's frozen weight, `[out, in]` or `[out, in, k, k]`.
   */
  fromWeights?(weightOf: (layer: TargetLayer) => Value): Map<string, Value>;
  /** @param parameters - By the names of {@link shapes}. */
  attach(graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter;
  /** Copies of trained values (or of their gradients) under the names of files. */
  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">>;
  /** The trained tensors from a state dict that {@link withLayersOf} has checked. */
  fromStateDict(state: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">>;
  /**
   * The same configuration on the layers that a state dict names.
   *
   * @param source - The file, for messages.
   * @throws {FormatError} If tensors are missing, unexpected, or do not fit each other.
   * @throws {ShapeError} If ranks or counts are not the configuration's.
   */
  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): Adapter<Config>;
  /** Whether what it changes is twice as much at twice the scale. */
  readonly isLinearInScale: boolean;
  /** A layer's weight with the adapter in it, exactly. Absent where no weight can hold what the adapter adds. */
  fuse?(fusion: WeightFusion): Value;
}

/** What a training step needs of an adapter. */
export type StepAdapter = Pick<
  Adapter,
  "config" | "shapes" | "lossNames" | "hasWholeBatchLoss" | "attach" | "toStateDict"
>;

/** The trained tensors of a model, and where their current values are. */
export interface AdapterState<Kind extends StepAdapter = Adapter> {
  adapter: Kind;
  /** By the adapter's names; trainers change the values in place. */
  parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** Tells whether a training step has newer values on a device. */
  residence: DeviceResident;
}

/** An adapter with its values, for a graph that holds it among others. Every run takes the values as they are then. */
export interface AttachableAdapter {
  adapter: Adapter;
  parameters: ReadonlyMap<string, Tensor<"float32">>;
}
