// FeRA adapters as files, in three formats.

import { ConfigError, FormatError } from "../errors.js";
import { decodeSafetensors, encodeSafetensors } from "../storage/safetensors.js";
import { readFileAt, writeFileAt } from "../storage/storage.js";
import { decodeTorch, encodeTorch } from "../storage/torch.js";
import type { Tensor } from "../tensor/tensor.js";
import type { AdapterConfig } from "./adapter.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { layoutOfState } from "./fera/fera-state.js";
import { floatState } from "./float-state.js";
import { pathSuffix, type TargetLayer } from "./target-layers.js";

/** An adapter by itself, without its model. */
export interface AdapterData<Config extends AdapterConfig = AdapterConfig> {
  config: Config;
  /** Under the names of files. */
  state: ReadonlyMap<string, Tensor<"float32">>;
}

/** An adapter as read. */
export interface LoadedAdapter<Config extends AdapterConfig = AdapterConfig> extends AdapterData<Config> {
  state: Map<string, Tensor<"float32">>;
  /** The layers that its tensors name. */
  layers: readonly TargetLayer[];
  /** False where the file has no configuration, so that what shapes do not tell was assumed. */
  hasConfig: boolean;
  /**
   * Its parts for text encoders, under the encoders' own module paths (`text_model.encoder.layers.0.self_attn.q_proj`).
   * A file may have nothing else; `state` and `layers` are empty then.
   */
  textEncoders?: ReadonlyMap<TextEncoderName, AdapterPart>;
}

/** diffusers' names of a pipeline's text encoders. */
export type TextEncoderName = "text_encoder" | "text_encoder_2";

/** An adapter's part for one component of a pipeline. */
export type AdapterPart = Pick<LoadedAdapter, "config" | "state" | "layers">;

/** `safetensors`, `torch` (the reference's, no configuration) or `folder` (as PEFT lays adapters out). */
export type AdapterFormat = "safetensors" | "torch" | "folder";

const METADATA_KEY = "fera_config";
/** The two files of an adapter in a folder, named as PEFT does. */
export const FOLDER_CONFIG = "adapter_config.json";
export const FOLDER_WEIGHTS = "adapter_model.safetensors";
/** Names bytes that came without a path in messages. */
export const ADAPTER_DATA = "adapter data";
const PEFT_TYPE = "FERA";
/** Keys that PEFT adds to every adapter_config.json; they say nothing about the adapter's function. */
const PEFT_KEYS = ["peft_type", "auto_mapping", "base_model_name_or_path", "inference_mode", "revision", "task_type"];

/** The format that a path asks for: by its ending, otherwise a folder. @throws {ConfigError} If it is none of these. */
export function adapterFormatOf(path: string): AdapterFormat {
  // An empty one would be a folder at the root of the file system.
  if (typeof path !== "string" || path === "") {
    throw new ConfigError(`an adapter's path must be a text that is not empty; got ${JSON.stringify(path)}.`);
  }
  if (/\.safetensors$/i.test(path)) return "safetensors";
  if (/\.(pt|pth)$/i.test(path)) return "torch";
  if (/\.(bin|ckpt|pkl|json|zip|onnx)$/i.test(path)) {
    throw new ConfigError(`${path}: an adapter is a .safetensors file, a .pt file, or a folder; choose one of these.`);
  }
  return "folder";
}

/**
 * Reads an adapter.
 *
 * Where the file has no configuration (a `.pt`, or a safetensors file without it), rank, experts and bands are taken
 * from the shapes, the target modules from the names, and everything else from `assumed`.
 *
 * @param file - A path, or the bytes of a `.safetensors` or `.pt` file.
 * @param assumed - Defaults to `new FeRAConfig()`: alpha 1, temperature 0.7, the reference's bands.
 * @throws {FormatError} If the file is missing, damaged, or not a FeRA adapter.
 * @throws {ConfigError} If its configuration is invalid.
 */
export async function readAdapter(
  file: string | Uint8Array,
  assumed: AdapterConfig = new FeRAConfig(),
): Promise<LoadedAdapter> {
  if (typeof file !== "string") {
    const isZip = file[0] === 0x50 && file[1] === 0x4b;
    return decodeAdapter(file, isZip ? "torch" : "safetensors", undefined, assumed, ADAPTER_DATA);
  }
  const format = adapterFormatOf(file);
  if (format !== "folder") return decodeAdapter(await readFileAt(file), format, undefined, assumed, file);
  const config = await readFolderConfig(file);
  const source = `${file}/${FOLDER_WEIGHTS}`;
  return decodeAdapter(await readFileAt(source), "safetensors", config, assumed, source);
}

/**
 * Reads an adapter that must be FeRA's.
 *
 * @throws {FormatError | ConfigError} As {@link readAdapter}, and if it is of another kind.
 */
export async function readFeRAAdapter(
  file: string | Uint8Array,
  assumed = new FeRAConfig(),
): Promise<LoadedAdapter<FeRAConfig>> {
  const adapter = await readAdapter(file, assumed);
  const { config } = adapter;
  if (config instanceof FeRAConfig) return { ...adapter, config };
  const source = typeof file === "string" ? file : ADAPTER_DATA;
  throw new FormatError(
    source,
    `is a ${config.adapterType} adapter; this needs a FeRA adapter, whose gates are routed.`,
  );
}

/**
 * Writes an adapter in the format that the path asks for.
 *
 * @throws {FormatError} If it cannot be written; what was there before is then still whole.
 */
export async function writeAdapter(path: string, { config, state }: AdapterData): Promise<void> {
  const format = adapterFormatOf(path);
  if (format === "torch") return writeFileAt(path, encodeTorch(state, path));
  const bytes = encodeSafetensors(state, { [METADATA_KEY]: JSON.stringify(config) });
  if (format === "safetensors") return writeFileAt(path, bytes);
  const json = JSON.stringify({ peft_type: PEFT_TYPE, ...config.toJSON() }, undefined, 2);
  await writeFileAt(`${path}/${FOLDER_WEIGHTS}`, bytes, { makeFolder: true });
  await writeFileAt(`${path}/${FOLDER_CONFIG}`, new TextEncoder().encode(`${json}\n`), { makeFolder: true });
}

/** @param given - A configuration from beside the file, which goes before the one in it. */
function decodeAdapter(
  bytes: Uint8Array,
  format: "safetensors" | "torch",
  given: FeRAConfig | undefined,
  assumed: AdapterConfig,
  source: string,
): LoadedAdapter {
  if (format === "torch") return complete(decodeTorch(bytes, source), undefined, assumed, source);
  const { tensors, metadata } = decodeSafetensors(bytes, source);
  const embedded = metadata[METADATA_KEY];
  const config = given ?? (embedded === undefined ? undefined : parseEmbedded(embedded, source));
  return complete(tensors, config, assumed, source);
}

function complete(
  tensors: ReadonlyMap<string, Tensor>,
  config: FeRAConfig | undefined,
  assumed: AdapterConfig,
  source: string,
): LoadedAdapter {
  const layout = layoutOfState(tensors, source, config);
  const { layers, rank, numExperts, numBands } = layout;
  const state = floatState(tensors, source);
  if (config) return { config, state, layers, hasConfig: true };
  const targetModules = [...new Set(layers.map(({ path }) => pathSuffix(path)))];
  const base = assumed instanceof FeRAConfig ? assumed : new FeRAConfig();
  const inferred = base.with({ rank, numExperts, numBands, targetModules, matching: "path" });
  return { config: inferred, state, layers, hasConfig: false };
}

async function readFolderConfig(folder: string): Promise<FeRAConfig> {
  const path = `${folder}/${FOLDER_CONFIG}`;
  const bytes = await readFileAt(path).catch((cause: Error) => {
    const reason = cause.message.replace(`${path}: `, "").replace(/\.$/, "");
    throw new FormatError(
      folder,
      `is no adapter's folder (${FOLDER_CONFIG}: ${reason}). ` +
        `Name a .safetensors or .pt file, or a folder with ${FOLDER_CONFIG} and ${FOLDER_WEIGHTS}.`,
      { cause },
    );
  });
  const json = parseJson(new TextDecoder().decode(bytes), path);
  const peftType = (json as { peft_type?: unknown } | null)?.peft_type;
  if (peftType !== PEFT_TYPE) {
    throw new FormatError(
      path,
      `peft_type must be "${PEFT_TYPE}"; got ${JSON.stringify(peftType)}. It is no FeRA adapter.`,
    );
  }
  const own = Object.entries(json as object).filter(([key]) => !PEFT_KEYS.includes(key));
  return FeRAConfig.fromJSON(Object.fromEntries(own), path);
}

function parseEmbedded(text: string, source: string): FeRAConfig {
  const where = `${source} (metadata ${METADATA_KEY})`;
  return FeRAConfig.fromJSON(parseJson(text, where), where);
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError(source, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
}
