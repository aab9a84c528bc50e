// Reads plain LoRA and DoRA in the names of kohya, diffusers, PEFT and cloneofsimo; see lora-format.ts for what tells them apart.
// Every tensor is accounted for: one that is not understood is refused by its name.

import { FormatError } from "../../errors.js";
import { isObject, parseJson } from "../../storage/json.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { AdapterConfig } from "../adapter.js";
import { DoRAConfig } from "../dora/dora-config.js";
import { floatState } from "../float-state.js";
import { patternValue } from "../layer-pattern.js";
import type { AdapterPart, LoadedAdapter, TextEncoderName } from "../loaded-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import type { FileLayer } from "./file-layer.js";
import { splitFlowLayers } from "./flow-layers.js";
import {
  COUNTED_CLASSES,
  COUNTED_TEXT_CLASS,
  findByName,
  findByNumber,
  type LayerFinder,
  textLayerByNumber,
  textLayerPath,
} from "./layer-names.js";
import { LoRAConfig } from "./lora-config.js";
import { type LoraFormat, type LoraLayer, type LoraPart, loraFormatOf } from "./lora-format.js";
import { type LoRASettings, loraPart, renamed, resolveLora } from "./lora-part.js";
import { type FoundRanks, metadataNotes } from "./metadata-notes.js";
import { type PeftConfig, parsePeftConfig } from "./peft-config.js";

/** The metadata's key of the configuration that fera writes beside the tensors. */
export const LORA_CONFIG_KEY = "fera_lora_config";
/** Where diffusers keeps PEFT's configurations, one per component, the component's name before each key. */
const DIFFUSERS_CONFIG_KEY = "lora_adapter_metadata";

/** What came with the tensors. */
export interface LoraContext {
  metadata: Readonly<Record<string, string>>;
  /** The file, for messages. */
  source: string;
  /** A folder's adapter_config.json. */
  peft?: Readonly<Record<string, unknown>> | undefined;
  /** Says how training goes on where the file does not. */
  assumed?: AdapterConfig | undefined;
}

/** A LoRA as read. */
export interface LoadedLora extends LoadedAdapter<LoRAConfig> {
  textEncoders: ReadonlyMap<TextEncoderName, AdapterPart<LoRAConfig>>;
  notes: readonly string[];
  resolve(layers: readonly TargetLayer[]): AdapterPart<LoRAConfig>;
}

/** Whether an adapter as read is a plain LoRA. */
export const isLoadedLora = (adapter: LoadedAdapter): adapter is LoadedLora =>
  [adapter, ...(adapter.textEncoders?.values() ?? [])].every(({ config }) => config instanceof LoRAConfig);

/**
 * Reads a LoRA's tensors.
 *
 * A layer's product is scaled by alpha / rank; alpha is the file's own tensor, else its configuration's, else the rank.
 *
 * @returns Undefined where no tensor is a LoRA's.
 * @throws {FormatError} If it is a relative of LoRA that is not supported (it is named), or a tensor is of no layer, is
 *   missing, or does not fit its pair.
 */
export function readLora(
  tensors: ReadonlyMap<string, Tensor>,
  { metadata, source, peft, assumed }: LoraContext,
): LoadedAdapter | undefined {
  const format = loraFormatOf(tensors, metadata);
  if (!format) return undefined;
  refuseUnsupported(format, source);
  const written = metadata[LORA_CONFIG_KEY];
  const known = written === undefined ? undefined : LoRAConfig.fromJSON(parseText(written, source), source);
  const configs = peftConfigs(peft, metadata, source);
  const dropout = assumed instanceof LoRAConfig ? assumed.dropout : undefined;
  const read = (parts: readonly LoraPart[], prefix: string) => {
    const config = configs.get(prefix) ?? configs.get("");
    const layers = format.layers.filter(({ part }) => parts.includes(part));
    const settings: LoRASettings = {
      dropout: config?.dropout ?? known?.dropout ?? dropout,
      useRslora: config?.useRslora,
      written: known,
    };
    return { layers: layers.map((layer) => fileLayer(layer, tensors, config, source)), settings };
  };

  const denoiser = read(["unet", "transformer"], "unet");
  const textEncoders = new Map<TextEncoderName, AdapterPart>();
  for (const name of ["text_encoder", "text_encoder_2"] as const) {
    const { layers, settings } = read([name], name);
    if (layers.length === 0) continue;
    const find = format.naming === "cloneofsimo" ? countedText(metadata, name, source) : textLayerPath;
    const own = loraPart(renamed(layers, find, source), { ...settings, written: undefined });
    textEncoders.set(name, named(own));
  }
  const { config, state, layers } = named(loraPart(denoiser.layers, denoiser.settings));
  return {
    config,
    state: new Map(state),
    layers,
    hasConfig: known !== undefined || configs.size > 0,
    textEncoders,
    notes: [...metadataNotes(metadata, foundRanks(format, denoiser.layers), known), ...notesOf(format)],
    resolve(model) {
      if (layers.length === 0) throw new FormatError(source, "changes text encoders only; load it into a pipeline.");
      const find = finderOf(format, metadata, model, denoiser.layers.length, source);
      const split = splitFlowLayers(denoiser.layers, model, source, denoiser.settings.useRslora);
      return named(resolveLora(split, denoiser.settings, find, model, source));
    },
  };
}

/** Layers that are several of diffusers' in one, with as many ranks; see flow-layers.ts. */
const FUSED = /[._](qkv|linear1)$/;

function foundRanks({ layers }: LoraFormat, all: readonly FileLayer[]): FoundRanks {
  const own = new Set(layers.filter(({ alpha }) => alpha !== undefined).map(({ name }) => name));
  const found = all.filter(({ name }) => !FUSED.test(name));
  return {
    ranks: found.map(({ down }) => down.shape[0]!),
    alphas: found.filter(({ name }) => own.has(name)).map(({ alpha }) => alpha),
  };
}

/** A part with magnitudes is DoRA's. */
function named(part: AdapterPart<LoRAConfig>): AdapterPart {
  const hasMagnitudes = [...part.state.keys()].some((name) => name.endsWith(".lora_magnitude_vector"));
  return hasMagnitudes ? { ...part, config: new DoRAConfig(part.config) } : part;
}

/** By component; under "" for all. */
function peftConfigs(
  peft: Readonly<Record<string, unknown>> | undefined,
  metadata: Readonly<Record<string, string>>,
  source: string,
): Map<string, PeftConfig> {
  const configs = new Map<string, PeftConfig>();
  if (peft) configs.set("", parsePeftConfig(peft, source));
  const text = metadata[DIFFUSERS_CONFIG_KEY];
  if (peft || text === undefined) return configs;
  const where = `${source} (metadata ${DIFFUSERS_CONFIG_KEY})`;
  const byComponent = new Map<string, Record<string, unknown>>();
  for (const [key, value] of Object.entries(parseText(text, where))) {
    const [, given = "", name = key] = /^(unet|transformer|text_encoder|text_encoder_2)\.(.+)$/.exec(key) ?? [];
    const component = given === "transformer" ? "unet" : given;
    byComponent.set(component, { ...byComponent.get(component), [name]: value });
  }
  for (const [component, json] of byComponent) configs.set(component, parsePeftConfig(json, where));
  return configs;
}

function parseText(text: string, source: string): Record<string, unknown> {
  const value = parseJson(new TextEncoder().encode(text), source);
  if (isObject(value)) return value;
  throw new FormatError(source, "must be a JSON object.");
}

const METHODS = {
  loha: "LoHa",
  lokr: "LoKr",
  oft: "OFT",
  ia3: "(IA)³",
  glora: "GLoRA",
  full: "a whole difference of weights",
} as const;

/** Tensors of a layer that are no part of its LoRA: of other methods, or second ones of the same role. */
const unusedOf = ({ tensors, down, up, alpha, magnitude }: LoraLayer): string[] =>
  tensors.filter((name) => ![down, up, alpha, magnitude].includes(name));

function refuseUnsupported({ naming, method, layers, unknown }: LoraFormat, source: string): void {
  if (method !== "lora" && method !== "dora") {
    const own = layers.filter((layer) => layer.method === method);
    const [first] = own.flatMap(unusedOf);
    throw new FormatError(
      source,
      `is ${METHODS[method]}, not LoRA (${own.length} of its ${layers.length} layers, such as ` +
        `"${first}"); it is none of the kinds that are supported.`,
    );
  }
  if (naming === "xlabs") {
    throw new FormatError(
      source,
      "is in XLabs' format, for FLUX.1, which is not supported. Convert it to diffusers' names (diffusers: load_lora_weights, " +
        "then save_lora_adapter of the transformer).",
    );
  }
  const ofT5 = layers.filter(({ part }) => part === "text_encoder_3").flatMap(({ tensors }) => tensors);
  if (ofT5.length > 0) {
    throw new FormatError(
      source,
      `adapts layers of T5, such as "${ofT5[0]}" (${ofT5.length} tensors), which are not adapted here. Without them the LoRA would ` +
        "act otherwise; train or save one that leaves T5 as it is.",
    );
  }
  const odd = [...unknown, ...layers.flatMap(unusedOf)];
  if (odd.length === 0) return;
  const shown = odd.slice(0, 3).map((name) => JSON.stringify(name));
  const more = odd.length > shown.length ? `, … (${odd.length} tensors)` : "";
  throw new FormatError(
    source,
    `holds what is no plain LoRA of layers that are known here: ${shown.join(", ")}${more}.`,
  );
}

function fileLayer(
  { name, down, up, alpha, magnitude }: LoraLayer,
  tensors: ReadonlyMap<string, Tensor>,
  config: PeftConfig | undefined,
  source: string,
): FileLayer {
  if (down === undefined || up === undefined) {
    throw new FormatError(source, `the layer "${name}" lacks its ${down === undefined ? "down" : "up"} matrix.`);
  }
  if (config?.useDora && magnitude === undefined) {
    throw new FormatError(source, `its configuration says DoRA; the layer "${name}" lacks its magnitudes.`);
  }
  const keys = [down, up, alpha, magnitude].filter((key) => key !== undefined);
  const own = new Map(keys.map((key) => [key, tensors.get(key)!]));
  const values = floatState(own, source);
  const matrices = { down: values.get(down)!, up: values.get(up)! };
  const rank = checkedRank(name, matrices, source);
  const said = config && (patternValue(config.rankPattern, name, source) ?? config.rank);
  if (said !== undefined && said !== rank) {
    throw new FormatError(source, `its configuration says rank ${said} at "${name}", its tensors ${rank}.`);
  }
  const scalar = alpha === undefined ? undefined : values.get(alpha)!;
  if (scalar && scalar.size !== 1) {
    throw new FormatError(source, `"${alpha}" must be one number; it is [${scalar.shape.join(",")}].`);
  }
  const configured = config && (patternValue(config.alphaPattern, name, source) ?? config.alpha);
  const magnitudes =
    magnitude === undefined ? undefined : magnitudesOf(magnitude, values.get(magnitude)!, matrices, source);
  return { name, ...matrices, alpha: scalar?.data[0] ?? configured ?? rank, magnitude: magnitudes };
}

/**
 * kohya's and LyCORIS's `dora_scale` is `[out, 1, …]`, or, per input, `[1, in, …]`; PEFT's vector has one number per output.
 */
function magnitudesOf(
  name: string,
  values: Tensor<"float32">,
  { down, up }: Pick<FileLayer, "down" | "up">,
  source: string,
): FileLayer["magnitude"] {
  const [outFeatures, inFeatures] = [up.shape[0]!, down.shape[1]!];
  const isPerInput = name.endsWith(".dora_scale") && values.shape[0] !== outFeatures;
  if (values.size === (isPerInput ? inFeatures : outFeatures)) return { axis: isPerInput ? "input" : "output", values };
  throw new FormatError(
    source,
    `"${name}" must have a magnitude for each of ${outFeatures} outputs or ${inFeatures} inputs; ` +
      `it is [${values.shape.join(",")}].`,
  );
}

/** `[r, in]` and `[out, r]`, or `[r, in, k, k]` and `[out, r, 1, 1]`. */
function checkedRank(name: string, { down, up }: Pick<FileLayer, "down" | "up">, source: string): number {
  const [rank = 0, , height, width] = down.shape;
  const isConvolution = down.shape.length === 4 && up.shape.length === 4;
  const isSquare = height === width && up.shape[2] === up.shape[3] && (up.shape[2] ?? 1) === 1;
  const fits = isConvolution ? isSquare : down.shape.length === 2 && up.shape.length === 2;
  if (fits && rank > 0 && up.shape[1] === rank) return rank;
  throw new FormatError(
    source,
    `the matrices of "${name}" must be [r,in] and [out,r], or [r,in,k,k] and [out,r,1,1]; ` +
      `they are [${down.shape.join(",")}] and [${up.shape.join(",")}].`,
  );
}

function finderOf(
  { naming }: LoraFormat,
  metadata: Readonly<Record<string, string>>,
  model: readonly TargetLayer[],
  count: number,
  source: string,
): LayerFinder {
  if (naming !== "cloneofsimo") return findByName(model);
  return findByNumber(model, classesOf(metadata, "unet", COUNTED_CLASSES, source), count);
}

function countedText(metadata: Readonly<Record<string, string>>, part: string, source: string): LayerFinder {
  classesOf(metadata, part, [COUNTED_TEXT_CLASS], source);
  return textLayerByNumber;
}

/** The module classes that the metadata say were adapted; on them depends what a number means. */
function classesOf(
  metadata: Readonly<Record<string, string>>,
  part: string,
  known: readonly string[],
  source: string,
): string[] | undefined {
  const text = metadata[part];
  if (text === undefined) return undefined;
  const { classes } = parseText(`{"classes":${text}}`, `${source} (metadata ${part})`);
  const odd = Array.isArray(classes) ? classes.find((name) => !known.includes(name)) : text;
  if (odd === undefined) return classes as string[];
  throw new FormatError(
    source,
    `its metadata say that the layers of ${JSON.stringify(odd)} are counted; known are ${known.join(", ")}.`,
  );
}

function notesOf({ tokens }: LoraFormat): string[] {
  if (tokens.length === 0) return [];
  const names = tokens.slice(0, 8).join(", ") + (tokens.length > 8 ? ", …" : "");
  return [
    `The file also holds ${tokens.length} learned token${tokens.length > 1 ? "s" : ""} (${names}), which ` +
      `${tokens.length > 1 ? "are" : "is"} not loaded: in a prompt ${tokens.length > 1 ? "they mean" : "it means"} nothing.`,
  ];
}
