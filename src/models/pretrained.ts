// Loads a model: its configuration, and weights of which each one is accounted for. Where bytes come from is the storage's
// business; of what form the weights are, that of weight-loading.ts.

import { ConfigError } from "../errors.js";
import { ModelWeights, type Scope, type Weight } from "../nn/index.js";
import type { DeviceOption, RuntimeOptions } from "../runtime/index.js";
import type { HubOptions } from "../storage/hub/hub-options.js";
import { readModelFolder } from "../storage/model-folder.js";
import { openStorage } from "../storage/storage.js";
import type { ModelFolder } from "./loaded-weights.js";
import { readSingleFile } from "./single-file/single-file.js";
import { accountForWeights } from "./weight-accounting.js";
import { loadPickled, loadSafetensors, WEIGHT_TYPES, type WeightType } from "./weight-loading.js";

/** What loading has to know of a class of models. */
export interface ModelClass<Config> {
  /** `_class_name` of diffusers, or an entry of transformers' `architectures`. */
  name: string;
  /** Further classes whose folders it can be read from. */
  alsoNamed?: readonly string[];
  /** Its folder in a pipeline's, unless the caller names one. */
  subfolder?: string;
  /** File name of the weights without `.safetensors`; default "diffusion_pytorch_model". */
  weightsName?: string;
  /** @throws {ConfigError} If the configuration asks for what is not supported. */
  parse(config: unknown, source: string): Config;
  /** Builds all that the model computes, so that each of its weights is asked for. */
  build(scope: Scope, config: Config): void;
  /** Gives weights of older checkpoints the names that `build` asks for. */
  currentNames?(weights: ModelWeights): ModelWeights;
  /** Whether its large weights can be kept in 8 or 4 bits; those of others are then as their file has them. */
  takesFewBits?: boolean;
}

/** Where weights and configuration come from. */
export interface SourceOptions extends HubOptions {
  /** Prefers the weights saved under this variant, for example "fp16", where there are any. */
  variant?: string;
  /**
   * For a checkpoint in a single file: the folder (or hub id) of a pipeline in diffusers' layout whose configuration and
   * tokenizers are used, and whose autoencoder and text encoders, where the file is one of Stable Diffusion 3, FLUX or Z-Image
   * that does not hold them. Stable Diffusion 1.x needs it for the tokenizer alone.
   */
  config?: string;
  /**
   * Checks all that loading checks, by configurations, names and shapes, and reads no weights; what is returned cannot
   * compute.
   */
  dryRun?: boolean;
}

/** Options of every model's `fromPretrained`. */
export interface PretrainedOptions extends SourceOptions {
  subfolder?: string;
  device?: DeviceOption;
  /**
   * How frozen weights are kept; default `float32`. Those of half precision take half the memory and are widened layer by
   * layer: what is computed, and what is trained, is float32. `auto` keeps what the file has.
   */
  dtype?: WeightType;
  threads?: number;
}

/**
 * Reads configuration and weights, and compares the weights with those that the model is built of.
 *
 * @param dir - A folder, a single-file checkpoint of a whole pipeline or a transformer, an address of either, or a hub id where
 *   there is no such folder.
 * @throws {FormatError} If a file is missing or malformed; if a weight is missing, of another shape, or one that the model
 *   does not use; it is named.
 * @throws {ConfigError} If the configuration asks for what is not supported.
 * @throws {HubError} If the model cannot be had from the hub.
 */
export async function loadModel<Config>(
  dir: string,
  options: PretrainedOptions,
  kind: ModelClass<Config>,
): Promise<{ config: Config; weights: ModelWeights; runtime: RuntimeOptions }> {
  if (options.dtype !== undefined && !WEIGHT_TYPES.includes(options.dtype)) {
    throw new ConfigError(`dtype: must be one of ${WEIGHT_TYPES.join(", ")}; got "${String(options.dtype)}".`);
  }
  const { subfolder = kind.subfolder ?? "", device, threads, ...source } = options;
  if ((source.dtype === "int8" || source.dtype === "nf4") && !kind.takesFewBits) source.dtype = "auto";
  const folder = await readFolder(dir, { ...source, subfolder }, kind);
  const config = kind.parse(folder.config, `${folder.source}/config.json`);
  const weights = new Map<string, Weight>();
  for (const [name, weight] of folder.weights ?? []) {
    weights.set(name, "tensor" in weight ? weight : { ...weight, dtype: "float32" });
  }
  const loaded = new ModelWeights(weights, folder.source);
  const named = kind.currentNames?.(loaded) ?? loaded;
  const used = folder.weights
    ? accountForWeights(named, folder.integers, kind.name, (scope) => kind.build(scope, config))
    : named;
  return { config, weights: used, runtime: { device, threads } };
}

async function readFolder(
  dir: string,
  options: SourceOptions & { subfolder: string; dtype?: WeightType },
  { name: className, alsoNamed = [], weightsName }: Pick<ModelClass<unknown>, "name" | "alsoNamed" | "weightsName">,
): Promise<ModelFolder> {
  const { subfolder, variant, dtype, dryRun = false, signal } = options;
  const storage = await openStorage(dir, { ...options, parts: [subfolder] });
  if (storage.file !== undefined) {
    const config = options.config === undefined ? undefined : await openConfig(options.config, options);
    const held = await readSingleFile(storage, storage.file, className, { subfolder, config, dtype, dryRun, signal });
    if (held) return held;
    const { config: folder, ...rest } = options;
    return readFolder(folder!, rest, { name: className, alsoNamed, ...(weightsName !== undefined && { weightsName }) });
  }
  const folder = await readModelFolder(storage, {
    subfolder,
    expectedClass: [className, ...alsoNamed],
    weightsName,
    variant,
  });
  const result: ModelFolder = { source: folder.dir, config: folder.config, weights: new Map(), integers: [] };
  if (dryRun && folder.pickled.length > 0) return { ...result, weights: undefined };
  const loading = [
    ...folder.weights.map((opened) => () => loadSafetensors(storage, opened, { dtype, dryRun, signal })),
    ...folder.pickled.map((pickled) => () => loadPickled(storage, pickled, { dtype })),
  ];
  const integers: string[] = [];
  for (const load of loading) {
    const part = await load();
    for (const [name, weight] of part.weights) result.weights!.set(name, weight);
    integers.push(...part.integers);
  }
  return { ...result, integers };
}

/** The folder whose configuration a single file has. */
export function openConfig(location: string, options: SourceOptions) {
  return openStorage(location, { ...options, parts: "all", weights: false });
}
