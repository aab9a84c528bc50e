// What a pipeline's folder, one model's folder, or a file of tensors holds, in lines. Also of models that fera does
// not run: only JSON and headers are read.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { FeraError } from "../errors.js";
import { openSafetensors, readJson, readModelFolder, type SafetensorsEntry } from "../formats/index.js";
import { describePipeline } from "../pipelines/pipeline-folder.js";
import { sizeOf } from "../tensor/tensor.js";
import { counted, formatBytes, formatCount, formatTable } from "./format.js";

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
  const index = (await readJson(join(dir, "model_index.json"))) as Record<string, unknown>;
  const rows: string[][] = [["part", "class", "parameters", "size", "type"]];
  const details: string[] = [];
  for (const [name, entry] of Object.entries(index)) {
    const className = Array.isArray(entry) ? entry[1] : undefined;
    if (name.startsWith("_") || typeof className !== "string") continue;
    const part = await readPart(dir, name);
    rows.push([name, className, ...(part ? weightCells(part.entries) : ["", "", ""])]);
    if (part && part.details.length > 0) details.push(`  ${name}: ${part.details.join(", ")}`);
  }
  const problem = await describePipeline(dir).then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof FeraError) return error.message;
      throw error;
    },
  );
  return [
    `${dir}: ${String(index._class_name)} in diffusers' layout`,
    ...formatTable(rows, 2).map((line) => `  ${line}`),
    ...details,
    problem === undefined ? "  fera can load it" : `  fera cannot load it: ${problem}`,
  ];
}

/** Class, parameters and size of one model. */
export async function describeModel(dir: string): Promise<string[]> {
  const config = (await readJson(join(dir, "config.json"))) as Record<string, unknown>;
  const className = config._class_name ?? [config.architectures].flat()[0];
  const entries = await weightsOf(dir);
  const [parameters, size, type] = weightCells(entries);
  return [
    `${dir}: ${typeof className === "string" ? className : "model without a class name"}`,
    parameters === "" ? "  no weights that can be read" : `  ${parameters} parameters, ${size}, ${type}`,
    ...tellingOf(config).map((line) => `  ${line}`),
  ];
}

/** The tensors of a file that is neither adapter nor checkpoint. */
export async function describeTensors(path: string): Promise<string[]> {
  const { entries, metadata } = await openSafetensors(path);
  const [parameters, size, type] = weightCells([...entries.values()]);
  const keys = Object.keys(metadata);
  const shown = [...entries].slice(0, 10).map(([name, { shape }]) => `  ${name} [${shape.join(",")}]`);
  return [
    `${path}: safetensors file, no adapter and no checkpoint of fera's`,
    `  ${counted(entries.size, "tensor")}, ${parameters || "0"} values, ${size || "0 B"}${type ? `, ${type}` : ""}`,
    ...(keys.length > 0 ? [`  metadata ${keys.join(", ")}`] : []),
    ...shown,
    ...(entries.size > shown.length ? [`  … ${entries.size - shown.length} more`] : []),
  ];
}

async function readPart(dir: string, name: string) {
  const folder = join(dir, name);
  const names = await readdir(folder).catch(() => [] as string[]);
  const file = ["config.json", "scheduler_config.json"].find((known) => names.includes(known));
  if (file === undefined) return undefined;
  // A scheduler's file may hold a bare Infinity, which is no JSON; it tells nothing about size then.
  const config = await readJson(join(folder, file)).catch(() => ({}));
  return {
    details: tellingOf(config as Record<string, unknown>),
    entries: file === "config.json" ? await weightsOf(folder) : [],
  };
}

function tellingOf(config: Record<string, unknown>): string[] {
  return TELLING.filter((key) => config[key] !== undefined && config[key] !== null).map((key) => {
    const value = config[key];
    return `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`;
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

function weightCells(entries: readonly SafetensorsEntry[]): [parameters: string, size: string, type: string] {
  if (entries.length === 0) return ["", "", ""];
  const parameters = entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const bytes = entries.reduce((sum, { length }) => sum + length, 0);
  const types = [...new Set(entries.map(({ dtype }) => dtype))].sort();
  return [formatCount(parameters), formatBytes(bytes), types.join(", ")];
}
