// What a plain LoRA holds, in lines: kohya's, diffusers' and PEFT's files, and LyCORIS's relatives of them.

import { join } from "node:path";
import { readAdapter, type TLoRAConfig } from "../adapters/index.js";
import {
  type LoraFormat,
  type LoraLayer,
  type LoraMethod,
  type LoraPart,
  loraFormatOf,
} from "../adapters/lora/lora-format.js";
import { FeraError } from "../errors.js";
import { asFloat32 } from "../storage/float-weights.js";
import { readJsonObject } from "../storage/index.js";
import { sizeOf } from "../tensor/tensor.js";
import { describeWeights } from "./describe-model.js";
import { counted, formatCount } from "./format.js";
import { attendsToText, familyOf } from "./model-family.js";
import { openTensorFile, type TensorFile } from "./open-tensor-file.js";
import { shortened } from "./printable.js";

const FOLDER_WEIGHTS = "adapter_model.safetensors";
const SHOWN_METADATA = ["ss_base_model_version", "ss_output_name", "modelspec.architecture", "modelspec.title"];
const FROZEN_KEY = "fera_frozen_gates";
/** Where diffusers keeps PEFT's configurations. */
const DIFFUSERS_CONFIG_KEY = "lora_adapter_metadata";
const ALPHAS_READ = 4096;
const LISTED = 3;
const METHODS: Readonly<Record<LoraMethod, string>> = {
  lora: "plain LoRA",
  dora: "DoRA (LoRA with a learned magnitude per output)",
  loha: "LoHa (LyCORIS)",
  lokr: "LoKr (LyCORIS)",
  oft: "OFT",
  ia3: "(IA)³",
  glora: "GLoRA (LyCORIS)",
  full: "whole differences of weights (LyCORIS)",
};

/** The format of a file's LoRA; undefined where it holds none. */
export const loraOf = (file: TensorFile): LoraFormat | undefined => loraFormatOf(file.entries, file.metadata);

/**
 * Method, program, parts, rank, alpha, targets, family, the frozen gates where fera wrote it, and whether fera loads it.
 *
 * @param adapterPath - The folder that the file is an adapter in.
 */
export async function describeLora(file: TensorFile, format: LoraFormat, adapterPath?: string): Promise<string[]> {
  const { entries, metadata, path } = file;
  const { layers, method, tokens, unknown } = format;
  const ranks = layers.flatMap(({ rank }) => rank ?? []);
  const crossing = layers.find(({ name, part }) => part === "unet" && attendsToText(name));
  const family = familyOf(crossing?.inFeatures);
  return [
    `${path}: ${METHODS[method]}, ${format.label}; ${file.format}`,
    `  ${partsOf(layers)}`,
    `  ${describeWeights([...entries.values()])}`,
    ...(ranks.length > 0
      ? [
          `  rank ${rangeOf(ranks)}${describeAlpha(await alphasOf(file, layers), adapterPath !== undefined || DIFFUSERS_CONFIG_KEY in metadata)}`,
        ]
      : []),
    `  targets ${targetsOf(layers)}`,
    ...(family ? [`  family ${family}`] : []),
    ...(tokens.length > 0
      ? [
          `  learned tokens ${tokens
            .slice(0, LISTED)
            .map((each) => shortened(each))
            .join(", ")}`,
        ]
      : []),
    ...(unknown.length > 0 ? [`  ${describeUnknown(unknown)}`] : []),
    ...describeFrozen(metadata[FROZEN_KEY]),
    ...SHOWN_METADATA.flatMap((key) => (metadata[key] ? [`  ${key} ${shortened(metadata[key])}`] : [])),
    `  ${await describeLoading(adapterPath ?? path)}`,
  ];
}

/** A T-LoRA, which has names of its own. */
export async function describeTLora(path: string): Promise<string[]> {
  const { config, layers, state } = await readAdapter(path);
  const { rank, alpha, minRank, maskPower } = config as TLoRAConfig;
  const parameters = [...state.values()].reduce((sum, { size }) => sum + size, 0);
  return [
    `${path}: T-LoRA adapter`,
    `  rank ${rank}, of which ${minRank} act at the noisiest timestep (power ${maskPower}), alpha ${alpha}`,
    `  ${counted(layers.length, "layer")}, ${formatCount(parameters)} parameters`,
    `  targets ${targetsOf(layers.map(({ path: name }) => ({ name })))}`,
  ];
}

async function describeLoading(path: string): Promise<string> {
  try {
    const { notes = [] } = await readAdapter(path);
    return ["fera can load it; it routes nothing", ...notes].join(". ");
  } catch (reason) {
    if (!(reason instanceof FeraError)) throw reason;
    return `fera cannot load it: ${reason.message}`;
  }
}

function describeUnknown(names: readonly string[]): string {
  const shown = names
    .slice(0, LISTED)
    .map((each) => shortened(each))
    .join(", ");
  return `${counted(names.length, "tensor")} of no layer: ${shown}${names.length > LISTED ? ", …" : ""}`;
}

/** A folder as PEFT writes it, of another kind than FeRA. */
export async function describePeftFolder(dir: string, config: Record<string, unknown>): Promise<string[]> {
  const file = await openTensorFile(join(dir, FOLDER_WEIGHTS));
  const format = loraOf(file);
  const { peft_type: type, r, lora_alpha: alpha, base_model_name_or_path: base } = config;
  const shown = (value: unknown) =>
    shortened(typeof value === "string" ? value : (JSON.stringify(value) ?? "not said"));
  return [
    `${dir}: PEFT adapter, peft_type ${shown(type)}, r ${shown(r)}, lora_alpha ${shown(alpha)}`,
    ...(typeof base === "string" ? [`  for ${shortened(base)}`] : []),
    ...(format
      ? (await describeLora(file, format, dir)).slice(1)
      : [`  ${describeWeights([...file.entries.values()])}`]),
  ];
}

/** `adapter_config.json`. @throws {FormatError} If it is no JSON object. */
export function readPeftConfig(dir: string): Promise<Record<string, unknown>> {
  return readJsonObject(join(dir, "adapter_config.json"));
}

const PARTS: Readonly<Record<LoraPart, string>> = {
  unet: "the UNet",
  transformer: "the transformer",
  text_encoder: "the text encoder",
  text_encoder_2: "the second text encoder",
  text_encoder_3: "the third text encoder",
};

function partsOf(layers: readonly LoraLayer[]): string {
  const known = Object.keys(PARTS) as LoraPart[];
  const counts = known.map((part) => [part, layers.filter((layer) => layer.part === part).length] as const);
  const shown = counts.filter(([, count]) => count > 0);
  return shown.map(([part, count]) => `${counted(count, "layer")} of ${PARTS[part]}`).join(", ");
}

function rangeOf(values: readonly number[]): string {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return low === high ? String(low) : `${low} to ${high}`;
}

/** The layers' own scalars. */
async function alphasOf({ entries, read }: TensorFile, layers: readonly LoraLayer[]): Promise<number[]> {
  const alphas: number[] = [];
  for (const name of layers.flatMap(({ alpha }) => alpha ?? []).slice(0, ALPHAS_READ)) {
    if (sizeOf(entries.get(name)!.shape) !== 1) continue;
    const value = await read(name);
    const number = Number((asFloat32(value) ?? value).data[0]);
    if (Number.isFinite(number)) alphas.push(number);
  }
  return alphas;
}

function describeAlpha(alphas: readonly number[], hasConfig: boolean): string {
  if (alphas.length > 0) return `, alpha ${rangeOf(alphas)}`;
  return hasConfig ? ", alpha as its configuration says" : ", no alpha in the file: programs take the rank";
}

const TARGET = /_((?:attn\d|self_attn|mlp|ff|time_emb_proj|emb_layers|proj_in|proj_out|conv)(?:_.*)?)$/;

/** Kinds of layers with their numbers, the most frequent first. */
function targetsOf(layers: readonly Pick<LoraLayer, "name">[]): string {
  const counts = new Map<string, number>();
  for (const { name } of layers) {
    const plain = name.replaceAll(".", "_");
    const target = TARGET.exec(plain)?.[1] ?? "others";
    counts.set(target, (counts.get(target) ?? 0) + 1);
  }
  const sorted = [...counts].sort(([first, a], [second, b]) => b - a || (first < second ? -1 : 1));
  const shown = sorted.slice(0, 16).map(([target, count]) => `${shortened(target)} ×${count}`);
  return shown.join(", ") + (sorted.length > shown.length ? `, ${sorted.length - shown.length} more` : "");
}

function describeFrozen(text: string | undefined): string[] {
  if (text === undefined) return [];
  let frozen: { gates?: unknown } | null;
  try {
    frozen = JSON.parse(text);
  } catch {
    return [];
  }
  const gates = frozen?.gates;
  if (!Array.isArray(gates) || !gates.every((gate) => typeof gate === "number")) return [];
  const shown = gates.slice(0, 64).map((gate) => Number(gate).toFixed(3));
  return [`  made from a FeRA adapter with ${counted(gates.length, "expert")}, gates frozen at ${shown.join(", ")}`];
}
