// A model as read from wherever it lies, before its class has looked at it.

import type { FileRange } from "../graph/index.js";
import type { Tensor } from "../tensor/tensor.js";

/** What a folder of one model holds. */
export interface ModelFolder {
  /** The folder, for messages. */
  source: string;
  config: Record<string, unknown>;
  /** Undefined in a dry run where names and shapes cannot be had without reading everything. */
  weights: LoadedWeights | undefined;
  /** Names of the tensors that are no floating-point numbers; no model uses such. */
  integers: readonly string[];
}

/** Weights by the name that a model gives them. */
export type LoadedWeights = Map<string, LoadedWeight>;

/** One weight: float32 in memory, or a range of a file that is used in place. */
export type LoadedWeight =
  | { shape: readonly number[]; tensor: Tensor<"float32"> }
  | { shape: readonly number[]; range: FileRange };
