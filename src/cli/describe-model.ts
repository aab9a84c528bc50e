// What a pipeline's folder, one model's folder, or a file of unknown tensors holds, in lines. Also of models that fera does
// not run: only JSON and headers are read.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { FeraError } from "../errors.js";
import { describePipeline } from "../pipelines/pipeline-folder.js";
import { formatBytes } from "../storage/byte-size.js";
import { readJson, readJsonObject, readModelFolder, type SafetensorsEntry } from "../storage/index.js";
import { sizeOf } from "../tensor/tensor.js";
import { counted, formatCount, formatTable } from "./format.js";
import { familyOf } from "./model-family.js";
import { shortened } from "./printable.js";
import type { TensorFile } from "./tensor-file.js";

const LISTED = 10;
const WEIGHT_NAMES = ["diffusion_pytorch_model", "model"];
/** What tells a model's size, by diffusers' and transformers' names. */
const TELLING = [
  "sample_size",
  "block_out_channels",
  "encoder_block_out_channels",
  "layers_per_block",
  "cross_attention_dim",
  "latent_channels",
  "scaling_factor",
  "hidden_size",
  "num_hidden_layers",
  "vocab_size",
  "prediction_type",
  "beta_schedule",
];

/** Components with their classes, parameters and sizes, and whether fera can run the pipeline. */
export async function describePipelineFolder(dir: string): Promise<string[]> {
  const index = await readJsonObject(join(dir, "model_index.json"));
  const rows: string[][] = [["part", "class", "parameters", "size", "type"]];
  const details: string[] = [];
  let family: string | undefined;
  for (const [name, entry] of Object.entries(index)) {
    const className = Array.isArray(entry) ? entry[1] : undefined;
    if (name.startsWith("_") || typeof className !== "string") continue;
    const part = await readPart(dir, name);
    rows.push([shortened(name), shortened(className), ...(part ? weightCells(part.entries) : ["", "", ""])]);
    if (name === "unet") family = familyOfConfig(part?.config);
    if (part && part.details.length > 0) details.push(`  ${shortened(name)}: ${part.details.join(", ")}`);
  }
  const problem = await describePipeline(dir).then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof FeraError) return error.message;
      throw error;
    },
  );
  return [
    `${dir}: ${shortened(String(index._class_name))} in diffusers' layout`,
    ...(family ? [`  family ${family}`] : []),
    ...formatTable(rows, 2).map((line) => `  ${line}`),
    ...details,
    problem === undefined ? "  fera can load it" : `  fera cannot load it: ${problem}`,
  ];
}

/** Class, parameters and size of one model. */
export async function describeModel(dir: string): Promise<string[]> {
  const config = await readJsonObject(join(dir, "config.json"));
  const className = config._class_name ?? [config.architectures].flat()[0];
  const entries = await weightsOf(dir);
  const family = familyOfConfig(config);
  return [
    `${dir}: ${typeof className === "string" ? shortened(className) : "model without a class name"}`,
    ...(family ? [`  family ${family}`] : []),
    `  ${entries.length === 0 ? "no weights that can be read" : describeWeights(entries)}`,
    ...tellingOf(config).map((line) => `  ${line}`),
  ];
}

/** The tensors of a file that is of no kind known here. */
export function describeTensors({ path, format, entries, metadata }: TensorFile): string[] {
  const keys = Object.keys(metadata);
  const shown = [...entries].slice(0, LISTED).map(([name, { shape }]) => `  ${shortened(name)} [${shape.join(",")}]`);
  return [
    `${path}: tensors; ${format}, but no adapter, no checkpoint and no LoRA that is known here`,
    `  ${counted(entries.size, "tensor")}, ${describeWeights([...entries.values()])}`,
    ...(keys.length > 0 ? [`  metadata ${keys.slice(0, LISTED).map(shortened).join(", ")}`] : []),
    ...shown,
    ...(entries.size > shown.length ? [`  … ${entries.size - shown.length} more`] : []),
  ];
}

/** "1,792,963 parameters, 7.17 MB, F32". */
export function describeWeights(entries: readonly Weight[]): string {
  if (entries.length === 0) return "no parameters";
  const [parameters, size, type] = weightCells(entries);
  return `${parameters} parameters, ${size}, ${type}`;
}

type Weight = Pick<SafetensorsEntry, "dtype" | "shape" | "length">;

/** @throws {FormatError} If the file is no JSON object. */
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** By the text features of a UNet; other models have none. */
function familyOfConfig(config: Record<string, unknown> | undefined): string | undefined {
  const features = config?._class_name === "UNet2DConditionModel" ? config.cross_attention_dim : undefined;
  return typeof features === "number" ? familyOf(features) : undefined;
}

async function readPart(dir: string, name: string) {
  const folder = join(dir, name);
  const names = await readdir(folder).catch(() => [] as string[]);
  const file = ["config.json", "scheduler_config.json"].find((known) => names.includes(known));
  if (file === undefined) return undefined;
  // A scheduler's file may hold a bare Infinity, which is no JSON; it tells nothing about size then.
  const json = await readJson(join(folder, file)).catch(() => ({}));
  const config = isObject(json) ? json : {};
  return {
    config,
    details: tellingOf(config),
    entries: file === "config.json" ? await weightsOf(folder) : [],
  };
}

function tellingOf(config: Record<string, unknown>): string[] {
  return TELLING.filter((key) => config[key] !== undefined && config[key] !== null).map((key) => {
    const value = config[key];
    return `${key} ${shortened(typeof value === "string" ? value : JSON.stringify(value))}`;
  });
}

/** Headers of a model's weights; none where they are missing or come in another format. */
async function weightsOf(dir: string): Promise<SafetensorsEntry[]> {
  for (const weightsName of WEIGHT_NAMES) {
    const folder = await readModelFolder(dir, { weightsName }).catch(() => undefined);
    if (folder) return folder.weights.flatMap(({ entries }) => [...entries.values()]);
  }
  return [];
}

function weightCells(entries: readonly Weight[]): [parameters: string, size: string, type: string] {
  if (entries.length === 0) return ["", "", ""];
  const parameters = entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const bytes = entries.reduce((sum, { length }) => sum + length, 0);
  const types = [...new Set(entries.map(({ dtype }) => dtype))].sort();
  return [formatCount(parameters), formatBytes(bytes), types.join(", ")];
}
