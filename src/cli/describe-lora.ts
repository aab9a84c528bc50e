// What a plain LoRA holds, in lines: kohya's, diffusers' and PEFT's files, and LyCORIS's relatives of them.

import { join } from "node:path";
import { readJsonObject } from "../storage/index.js";
import { describeWeights } from "./describe-model.js";
import { counted } from "./format.js";
import { attendsToText, familyOf } from "./model-family.js";
import { shortened } from "./printable.js";
import { openTensorFile, type TensorFile } from "./tensor-file.js";

/** Names of tensors by program; the first group is the layer, and `rank` the axis that holds the rank. */
const SPELLINGS = [
  { kind: "LoRA, kohya's names", pattern: /^(lora_.+)\.lora_down\.weight$/, rank: 0 },
  { kind: "LoRA, PEFT's names", pattern: /^base_model\.model\.(.+)\.lora_A\.weight$/, rank: 0 },
  { kind: "LoRA, diffusers' names", pattern: /^(.+)\.lora_A(?:\.[^.]+)?\.weight$/, rank: 0 },
  { kind: "LoRA, diffusers' old names", pattern: /^(.+?)[._]lora(?:_linear_layer)?\.down\.weight$/, rank: 0 },
  { kind: "LoHa (LyCORIS)", pattern: /^(.+)\.hada_w1_b$/, rank: 0 },
  { kind: "LoKr (LyCORIS)", pattern: /^(.+)\.lokr_w1(?:_a)?$/, rank: undefined },
] as const;

const FOLDER_WEIGHTS = "adapter_model.safetensors";
const SHOWN_METADATA = ["ss_base_model_version", "ss_output_name", "modelspec.architecture", "modelspec.title"];
const FROZEN_KEY = "fera_frozen_gates";
const ALPHAS_READ = 4096;

/** Whether tensors are those of a plain LoRA. */
export function isLora(file: TensorFile): boolean {
  return [...file.entries.keys()].some((name) => SPELLINGS.some(({ pattern }) => pattern.test(name)));
}

/** Program, parts, rank, alpha, targets, family, and the frozen gates where fera wrote it. */
export async function describeLora(file: TensorFile): Promise<string[]> {
  const { entries, metadata, path } = file;
  const names = [...entries.keys()];
  const spelling = SPELLINGS.find(({ pattern }) => names.some((name) => pattern.test(name)))!;
  const layers = new Map<string, readonly number[]>();
  for (const name of names) {
    const layer = spelling.pattern.exec(name)?.[1];
    if (layer !== undefined) layers.set(layer, entries.get(name)!.shape);
  }
  const ranks = spelling.rank === undefined ? [] : [...layers.values()].map((shape) => shape[0] ?? 0);
  const crossing = [...layers].find(([layer]) => attendsToText(layer));
  const family = spelling.rank === undefined ? undefined : familyOf(crossing?.[1][1]);
  return [
    `${path}: plain ${spelling.kind}; ${file.format}`,
    `  ${partsOf([...layers.keys()])}`,
    `  ${describeWeights([...entries.values()])}`,
    ...(ranks.length > 0 ? [`  rank ${rangeOf(ranks)}${describeAlpha(await alphasOf(file))}`] : []),
    `  targets ${targetsOf([...layers.keys()])}`,
    ...(family ? [`  family ${family}`] : []),
    ...describeFrozen(metadata[FROZEN_KEY]),
    ...SHOWN_METADATA.flatMap((key) => (metadata[key] ? [`  ${key} ${shortened(metadata[key])}`] : [])),
    "  a plain LoRA routes nothing; fera itself loads FeRA adapters only",
  ];
}

/** A folder as PEFT writes it, of another kind than FeRA. */
export async function describePeftFolder(dir: string, config: Record<string, unknown>): Promise<string[]> {
  const file = await openTensorFile(join(dir, FOLDER_WEIGHTS));
  const { peft_type: type, r, lora_alpha: alpha, base_model_name_or_path: base } = config;
  const shown = (value: unknown) =>
    shortened(typeof value === "string" ? value : (JSON.stringify(value) ?? "not said"));
  return [
    `${dir}: PEFT adapter, peft_type ${shown(type)}, r ${shown(r)}, lora_alpha ${shown(alpha)}`,
    ...(typeof base === "string" ? [`  for ${shortened(base)}`] : []),
    ...(isLora(file) ? (await describeLora(file)).slice(1) : [`  ${describeWeights([...file.entries.values()])}`]),
  ];
}

/** `adapter_config.json`. @throws {FormatError} If it is no JSON object. */
export function readPeftConfig(dir: string): Promise<Record<string, unknown>> {
  return readJsonObject(join(dir, "adapter_config.json"));
}

function partsOf(layers: readonly string[]): string {
  const parts = new Map<string, number>();
  for (const layer of layers) {
    const part = /^(?:lora_te|text_encoder)/.test(layer) ? "text encoder" : "UNet or transformer";
    parts.set(part, (parts.get(part) ?? 0) + 1);
  }
  const sorted = [...parts].sort(([a], [b]) => (a < b ? -1 : 1)); // the UNet first
  return sorted.map(([part, count]) => `${counted(count, "layer")} of the ${part}`).join(", ");
}

function rangeOf(values: readonly number[]): string {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return low === high ? String(low) : `${low} to ${high}`;
}

/** The scalars named `….alpha`. */
async function alphasOf({ entries, read }: TensorFile): Promise<number[]> {
  const names = [...entries.keys()].filter((name) => name.endsWith(".alpha")).slice(0, ALPHAS_READ);
  const alphas: number[] = [];
  for (const name of names) {
    const { dtype, shape } = entries.get(name)!;
    if (shape.some((length) => length !== 1) || !/^(F32|BF16|F64|I32|I64)$/.test(dtype)) continue;
    const value = Number((await read(name)).data[0]);
    if (Number.isFinite(value)) alphas.push(value);
  }
  return alphas;
}

const describeAlpha = (alphas: readonly number[]): string =>
  alphas.length === 0 ? ", no alpha in the file: programs take the rank" : `, alpha ${rangeOf(alphas)}`;

const TARGET = /_((?:attn\d|self_attn|mlp|ff|time_emb_proj|emb_layers|proj_in|proj_out|conv)(?:_.*)?)$/;

/** Kinds of layers with their numbers, the most frequent first. */
function targetsOf(layers: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const layer of layers) {
    const plain = layer.replaceAll(".", "_");
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
