// Loads a model's configuration and weights from a diffusers folder. How a folder is read is the platform's business:
// the Node entry registers a reader of files, a web page may register one of its own.

import { ConfigError, FormatError } from "../errors.js";
import type { FileRange } from "../graph/index.js";
import { ModelWeights, type Weight } from "../nn/index.js";
import type { DeviceOption, RuntimeOptions } from "../runtime/index.js";
import type { HubOptions } from "../storage/hub/hub-options.js";
import type { Tensor } from "../tensor/tensor.js";

/** What a folder of one model holds. */
export interface ModelFolder {
  /** The folder, for messages. */
  source: string;
  config: Record<string, unknown>;
  weights: Map<string, LoadedWeight>;
}

/** One float32 weight: in memory, or a range of a file that is used in place. */
export type LoadedWeight =
  | { shape: readonly number[]; tensor: Tensor<"float32"> }
  | { shape: readonly number[]; range: FileRange };

/** Which part of a pipeline's folder to read, and how. */
export interface ModelFolderRequest extends SourceOptions {
  subfolder?: string;
  /** `_class_name` of diffusers or an entry of transformers' `architectures`. */
  expectedClass: string | readonly string[];
  /** File name of the weights without `.safetensors`. */
  weightsName?: string;
}

type ModelFolderReader = (dir: string, request: ModelFolderRequest) => Promise<ModelFolder>;

let reader: ModelFolderReader | undefined;

/** Called once by the platform's entry point. */
export function registerModelFolderReader(next: ModelFolderReader): void {
  reader = next;
}

/** Where weights and configuration come from. */
export interface SourceOptions extends HubOptions {
  /** Prefers the weights saved under this variant, for example "fp16", where there are any. */
  variant?: string;
  /**
   * For a checkpoint in a single file: the folder (or hub id) of a pipeline in diffusers' layout whose configuration and
   * tokenizer are used. Stable Diffusion 1.x needs it for the tokenizer alone.
   */
  config?: string;
}

/** Options of every model's `fromPretrained`. */
export interface PretrainedOptions extends SourceOptions {
  subfolder?: string;
  device?: DeviceOption;
  /** Precision of the computation; float32 only. float16 and bfloat16 checkpoints are converted when they are loaded. */
  dtype?: "float32";
  threads?: number;
}

/**
 * Reads configuration and weights.
 *
 * @param dir - A folder, a single-file checkpoint of a whole pipeline, or a hub id where there is no such folder.
 */
export async function loadPretrained(
  dir: string,
  options: PretrainedOptions,
  request: ModelFolderRequest,
): Promise<{ config: Record<string, unknown>; weights: ModelWeights; runtime: RuntimeOptions; source: string }> {
  if (options.dtype !== undefined && options.dtype !== "float32") {
    throw new ConfigError(`dtype: models compute in float32; got "${String(options.dtype)}". Leave the option out.`);
  }
  if (!reader) throw new FormatError(dir, "this platform has registered no reader of model folders.");
  const { subfolder = request.subfolder, device: _device, dtype: _dtype, threads: _threads, ...source } = options;
  const folder = await reader(dir, { ...request, ...source, subfolder });
  const weights = new Map<string, Weight>();
  for (const [name, weight] of folder.weights) {
    weights.set(name, "tensor" in weight ? weight : { ...weight, dtype: "float32" });
  }
  return {
    config: folder.config,
    weights: new ModelWeights(weights, folder.source),
    runtime: { device: options.device, threads: options.threads },
    source: `${folder.source}/config.json`,
  };
}
