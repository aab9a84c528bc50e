// Adapters as files. FeRA's in three formats and T-LoRA's in two of these; LoRA, DoRA, LoKr and LoHa in the formats of other
// programs, see lora/read-lora.ts and lycoris/read-lycoris.ts.

import { ConfigError, FormatError, quoted } from "../errors.js";
import { isObject } from "../storage/json.js";
import { decodeSafetensors, encodeSafetensors } from "../storage/safetensors.js";
import { readFileAt, writeFileAt } from "../storage/storage.js";
import { decodeTorch, encodeTorch } from "../storage/torch.js";
import type { Tensor } from "../tensor/tensor.js";
import type { AdapterConfig } from "./adapter.js";
import { DIFFUSERS_WEIGHTS, FOLDER_CONFIG, FOLDER_WEIGHTS, writeAdapterFolder } from "./adapter-folder.js";
import { DoRAConfig } from "./dora/dora-config.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { isFeRAState, layoutOfState } from "./fera/fera-state.js";
import { floatState } from "./float-state.js";
import type { AdapterData, AdapterPart, LoadedAdapter, TextEncoderName } from "./loaded-adapter.js";
import { LoHaAdapter } from "./loha/loha-adapter.js";
import { LoHaConfig } from "./loha/loha-config.js";
import { LoKrAdapter } from "./lokr/lokr-adapter.js";
import { LoKrConfig } from "./lokr/lokr-config.js";
import { LoRAAdapter } from "./lora/lora-adapter.js";
import { LoRAConfig } from "./lora/lora-config.js";
import { loraFormatOf } from "./lora/lora-format.js";
import { readLora } from "./lora/read-lora.js";
import { defaultLoraNames, encodeLora, writeLora } from "./lora/write-lora.js";
import { ADAPTER_CONFIG_KEY, kohyaParts, withKind, writeLycoris } from "./lycoris/lycoris-file.js";
import { readLycoris } from "./lycoris/read-lycoris.js";
import { type LycorisPart, lycorisMetadata, lycorisTensors } from "./lycoris/write-lycoris.js";
import { isTLoRAState, TLoRAAdapter } from "./t-lora/t-lora-adapter.js";
import { TLoRAConfig } from "./t-lora/t-lora-config.js";
import { pathSuffix, type TargetLayer } from "./target-layers.js";
import { loraParts, splitTextEncoders, textEncoderTensors } from "./text-encoder-parts.js";

export type { AdapterData, AdapterPart, LoadedAdapter, TextEncoderName } from "./loaded-adapter.js";
export { writeLycoris } from "./lycoris/lycoris-file.js";

/** `safetensors`, `torch` (the reference's, no configuration) or `folder` (as PEFT lays adapters out). */
export type AdapterFormat = "safetensors" | "torch" | "folder";

const METADATA_KEY = "fera_config";
/** Names bytes that came without a path in messages. */
export const ADAPTER_DATA = "adapter data";
const PEFT_TYPE = "FERA";
const PEFT_T_LORA = "T_LORA";
/** PEFT's own kinds that are supported. */
const PEFT_KINDS: readonly unknown[] = ["LORA", "LOKR", "LOHA"];
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
 * Where a FeRA file has no configuration (a `.pt`, or a safetensors file without it), rank, experts and bands are taken
 * from the shapes, the target modules from the names, and everything else from `assumed`.
 *
 * @param file - A path, or the bytes of a `.safetensors` or `.pt` file.
 * @param assumed - Defaults to `new FeRAConfig()`: alpha 1, temperature 0.7, the reference's bands.
 * @throws {FormatError} If the file is missing, damaged, or no adapter that is supported; it is named where it is known.
 * @throws {ConfigError} If its configuration is invalid.
 */
export async function readAdapter(
  file: string | Uint8Array,
  assumed: AdapterConfig = new FeRAConfig(),
): Promise<LoadedAdapter> {
  if (typeof file !== "string") {
    const isZip = file[0] === 0x50 && file[1] === 0x4b;
    return decodeAdapter(file, isZip ? "torch" : "safetensors", { assumed, source: ADAPTER_DATA });
  }
  const format = adapterFormatOf(file);
  if (format !== "folder") return decodeAdapter(await readFileAt(file), format, { assumed, source: file });
  return readFolder(file, assumed);
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
  return asFeRAAdapter(await readAdapter(file, assumed), typeof file === "string" ? file : ADAPTER_DATA);
}

/** An adapter as read, which must be FeRA's. @throws {FormatError} If it is of another kind. */
export function asFeRAAdapter(adapter: LoadedAdapter, source: string): LoadedAdapter<FeRAConfig> {
  const { config } = adapter;
  if (config instanceof FeRAConfig) return { ...adapter, config };
  throw new FormatError(
    source,
    `is a ${config.adapterType} adapter; this needs a FeRA adapter, whose gates are routed.`,
  );
}

/** What is known of the model when an adapter is written. */
export interface WriteOptions {
  /** All layers of the model that adapters can change: kohya's names of SDXL's layers count through them. */
  modelLayers?: readonly TargetLayer[];
}

/**
 * An adapter as the bytes of a `.safetensors` file with its configuration, which {@link readAdapter} takes.
 *
 * @throws {ConfigError | FormatError} If it is a plain LoRA on layers that other programs have no names for.
 */
export function encodeAdapter(data: AdapterData, options: WriteOptions = {}): Uint8Array<ArrayBuffer> {
  const { config, state, textEncoders = new Map<TextEncoderName, AdapterPart>() } = data;
  const lycoris = lycorisPartOf(data, ADAPTER_DATA);
  if (lycoris) {
    const tensors = lycorisTensors(lycoris, ADAPTER_DATA, { blocks: options.modelLayers }, kohyaParts(textEncoders));
    return encodeSafetensors(tensors, { format: "pt", ...lycorisMetadata(lycoris), ...withKind(config) });
  }
  const part = loraPartOf(data, ADAPTER_DATA);
  if (!part) {
    const beside = textEncoderTensors(textEncoders);
    const own = config instanceof TLoRAConfig ? withKind(config) : { [METADATA_KEY]: JSON.stringify(config) };
    return encodeSafetensors(new Map([...state, ...beside.tensors]), { ...own, ...beside.metadata });
  }
  const ofText = loraParts(textEncoders, ({ config }) => loraConfigOf(config), ADAPTER_DATA);
  return encodeLora(part, defaultLoraNames(part.layers), ADAPTER_DATA, {
    blocks: options.modelLayers,
    textEncoders: ofText,
  });
}

/**
 * Writes an adapter in the format that the path asks for.
 *
 * A plain LoRA is written as other programs read it: in kohya's names, or diffusers' where kohya has none; as a folder
 * like PEFT's. In the metadata it keeps its configuration.
 *
 * @throws {FormatError} If it cannot be written; what was there before is then still whole.
 * @throws {ConfigError} If the format cannot say what the adapter is: a `.pt` knows the published router only.
 */
export async function writeAdapter(path: string, data: AdapterData, { modelLayers }: WriteOptions = {}): Promise<void> {
  const { config, state, textEncoders = new Map<TextEncoderName, AdapterPart>() } = data;
  const format = adapterFormatOf(path);
  checkAdapterPath(path, config, textEncoders.size > 0);
  const lycoris = lycorisPartOf(data, path);
  if (lycoris) {
    const names = format === "folder" ? "peft" : "kohya";
    return writeLycoris(path, lycoris, names, { blocks: modelLayers, textEncoders });
  }
  const part = loraPartOf(data, path);
  if (part) {
    const names = format === "folder" ? "peft" : defaultLoraNames(part.layers);
    const ofText = loraParts(textEncoders, ({ config }) => loraConfigOf(config), path);
    return writeLora(path, part, names, { blocks: modelLayers, textEncoders: ofText });
  }
  if (format === "torch") return writeFileAt(path, encodeTorch(state, path));
  const bytes = encodeAdapter(data);
  if (format === "safetensors") return writeFileAt(path, bytes);
  const type = config instanceof TLoRAConfig ? PEFT_T_LORA : PEFT_TYPE;
  await writeAdapterFolder(path, bytes, { peft_type: type, ...config.toJSON() });
}

/** A LoKr or LoHa with its layers; undefined for other kinds. */
function lycorisPartOf({ config, state }: AdapterData, source: string): LycorisPart | undefined {
  if (!(config instanceof LoKrConfig || config instanceof LoHaConfig)) return undefined;
  const bare = config instanceof LoKrConfig ? new LoKrAdapter(config, new Map()) : new LoHaAdapter(config, new Map());
  return { config, state, layers: bare.withLayersOf(state, source).layers };
}

/** What the formats of other programs hold of a LoRA or DoRA; undefined for other kinds. */
function loraPartOf({ config, state }: AdapterData, source: string): AdapterPart<LoRAConfig> | undefined {
  const lora = loraConfigOf(config);
  if (!lora) return undefined;
  const products = new Map([...state].filter(([name]) => !name.endsWith(".lora_magnitude_vector")));
  return { config: lora, state, layers: new LoRAAdapter(lora, []).withLayersOf(products, source).layers };
}

/** The LoRA of a LoRA or DoRA; undefined for other kinds. */
function loraConfigOf(config: AdapterConfig): LoRAConfig | undefined {
  const lora = config instanceof DoRAConfig ? config.lora : config;
  return lora instanceof LoRAConfig ? lora : undefined;
}

/**
 * Refuses a path that an adapter of this configuration cannot be written to: before a training, not at its end.
 *
 * @param hasTextEncoders - Whether it has parts for text encoders.
 * @throws {ConfigError} As {@link adapterFormatOf}, and for a `.pt` of T-LoRA or with a router other than the published one:
 *   it has no configuration, so that the router would be taken for the published one when it is read. With text encoders,
 *   for any `.pt` of FeRA, and for PEFT's folder.
 */
export function checkAdapterPath(path: string, config: AdapterConfig, hasTextEncoders = false): void {
  if (hasTextEncoders && (adapterFormatOf(path) === "folder" || config instanceof FeRAConfig)) {
    const isFera = config instanceof FeRAConfig || config instanceof TLoRAConfig;
    if (adapterFormatOf(path) === "torch" || (adapterFormatOf(path) === "folder" && !isFera)) {
      const what = isFera ? "a .pt file" : "PEFT's folder";
      throw new ConfigError(`${path}: ${what} cannot hold adapters of text encoders. Write a .safetensors file.`);
    }
  }
  if (adapterFormatOf(path) === "torch" && config instanceof TLoRAConfig) {
    throw new ConfigError(
      `${path}: a .pt file cannot say which ranks of a T-LoRA act when. Write a .safetensors file or a folder.`,
    );
  }
  if (adapterFormatOf(path) !== "torch" || !(config instanceof FeRAConfig) || config.router === "energies") return;
  throw new ConfigError(
    `${path}: a .pt file cannot say that the router is "${config.router}". Write a .safetensors file or a folder.`,
  );
}

/** What a file is read with. */
interface DecodeContext {
  assumed: AdapterConfig;
  source: string;
  /** A folder's adapter_config.json, which goes before a configuration in the file. */
  folder?: Record<string, unknown>;
}

function decodeAdapter(bytes: Uint8Array, format: "safetensors" | "torch", context: DecodeContext): LoadedAdapter {
  const { source } = context;
  const { tensors, metadata } =
    format === "torch" ? { tensors: decodeTorch(bytes, source), metadata: {} } : decodeSafetensors(bytes, source);
  const { rest, textEncoders } = splitTextEncoders(tensors, metadata, source);
  if (textEncoders) return { ...decodeTensors(rest, metadata, context), textEncoders };
  return decodeTensors(tensors, metadata, context);
}

function decodeTensors(
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>>,
  { assumed, source, folder }: DecodeContext,
): LoadedAdapter {
  const embedded = metadata[METADATA_KEY];
  const kind = writtenKind(metadata[ADAPTER_CONFIG_KEY], source);
  if (isTLoRAState(tensors)) return decodeTLoRA(tensors, folder, kind, source);
  const isFeRA = folder ? folder.peft_type === PEFT_TYPE : embedded !== undefined || isFeRAState(tensors);
  if (!isFeRA) {
    const names = loraFormatOf(tensors, metadata);
    if (names?.method === "lokr" || names?.method === "loha") {
      if (folder && folder.peft_type !== names.method.toUpperCase()) {
        throw new FormatError(
          source,
          `holds ${names.method}; its configuration's peft_type is ${quoted(folder.peft_type)}.`,
        );
      }
      return readLycoris(names, tensors, { metadata, source, peft: folder, written: kind, assumed });
    }
    const lora = readLora(tensors, { metadata, source, peft: folder, assumed });
    if (lora) return lora;
    if (folder) throw new FormatError(source, "holds no tensors of a LoRA or one of its relatives.");
  }
  const own = folder ? feraConfigOf(folder, source) : undefined;
  return complete(
    tensors,
    own ?? (embedded === undefined ? undefined : parseEmbedded(embedded, source)),
    assumed,
    source,
  );
}

/** fera's own configuration of a kind that is not FeRA. */
function writtenKind(text: string | undefined, source: string): AdapterConfig | undefined {
  if (text === undefined) return undefined;
  const where = `${source} (metadata ${ADAPTER_CONFIG_KEY})`;
  const json = parseJson(text, where);
  if (!isObject(json)) throw new FormatError(where, "must be a JSON object.");
  const { adapter_type: type, ...options } = json;
  const kinds = { lokr: LoKrConfig, loha: LoHaConfig, "t-lora": TLoRAConfig } as const;
  if (typeof type === "string" && Object.hasOwn(kinds, type)) {
    return kinds[type as keyof typeof kinds].fromJSON(options, where);
  }
  throw new FormatError(where, `adapter_type must be ${Object.keys(kinds).join(" or ")}; got ${quoted(type)}.`);
}

function decodeTLoRA(
  tensors: ReadonlyMap<string, Tensor>,
  folder: Readonly<Record<string, unknown>> | undefined,
  written: AdapterConfig | undefined,
  source: string,
): LoadedAdapter {
  const own = Object.entries(folder ?? {}).filter(([key]) => !PEFT_KEYS.includes(key));
  const config = folder
    ? TLoRAConfig.fromJSON(Object.fromEntries(own), source.replace(FOLDER_WEIGHTS, FOLDER_CONFIG))
    : written;
  if (!(config instanceof TLoRAConfig)) {
    throw new FormatError(
      source,
      "is a T-LoRA without its configuration, so that it is not known which ranks act when.",
    );
  }
  const { layers } = new TLoRAAdapter(config, []).withLayersOf(tensors, source);
  return { config, state: floatState(tensors, source), layers, hasConfig: true };
}

function complete(
  tensors: ReadonlyMap<string, Tensor>,
  config: FeRAConfig | undefined,
  assumed: AdapterConfig,
  source: string,
): LoadedAdapter {
  const layout = layoutOfState(tensors, source, config);
  const { layers, rank, numExperts, numBands, sharedDown } = layout;
  const state = floatState(tensors, source);
  if (config) return { config, state, layers, hasConfig: true };
  const targetModules = [...new Set(layers.map(({ path }) => pathSuffix(path)))];
  const base = assumed instanceof FeRAConfig ? assumed : new FeRAConfig();
  const inferred = base.with({ rank, numExperts, numBands, sharedDown, targetModules, matching: "path" });
  return { config: inferred, state, layers, hasConfig: false };
}

async function readFolder(folder: string, assumed: AdapterConfig): Promise<LoadedAdapter> {
  const path = `${folder}/${FOLDER_CONFIG}`;
  const bytes = await readFileAt(path).catch((cause: Error) => cause);
  if (bytes instanceof Error) {
    const diffusers = `${folder}/${DIFFUSERS_WEIGHTS}`;
    const weights = await readFileAt(diffusers).catch(() => undefined);
    if (weights) return decodeAdapter(weights, "safetensors", { assumed, source: diffusers });
    const reason = bytes.message.replace(`${path}: `, "").replace(/\.$/, "");
    throw new FormatError(
      folder,
      `is no adapter's folder (${FOLDER_CONFIG}: ${reason}). ` +
        `Name a .safetensors or .pt file, or a folder with ${FOLDER_CONFIG} and ${FOLDER_WEIGHTS}.`,
      { cause: bytes },
    );
  }
  const json = parseJson(new TextDecoder().decode(bytes), path);
  const peftType = isObject(json) ? json.peft_type : undefined;
  const known = [PEFT_TYPE, PEFT_T_LORA, ...PEFT_KINDS];
  if (!isObject(json) || !known.includes(peftType)) {
    throw new FormatError(
      path,
      `peft_type must be ${known.map(quoted).join(" or ")}; got ${quoted(peftType)}. It is no adapter that is supported.`,
    );
  }
  const source = `${folder}/${FOLDER_WEIGHTS}`;
  return decodeAdapter(await readFileAt(source), "safetensors", { assumed, source, folder: json });
}

function feraConfigOf(json: Record<string, unknown>, source: string): FeRAConfig {
  const own = Object.entries(json).filter(([key]) => !PEFT_KEYS.includes(key));
  return FeRAConfig.fromJSON(Object.fromEntries(own), source.replace(FOLDER_WEIGHTS, FOLDER_CONFIG));
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
