// What a pipeline's folder, one model's folder, or a file of unknown tensors holds, in lines, and whether fera can load it,
// as the code says that loads it. Only JSON and headers are read, also of models that fera does not run.

import { join } from "node:path";
import { createObjective } from "../diffusion/index.js";
import { FeraError } from "../errors.js";
import { KNOWN_MODELS } from "../models/known-models.js";
import { type AnyPipeline, loadPipeline } from "../pipelines/index.js";
import { createScheduler } from "../schedulers/index.js";
import { formatBytes } from "../storage/file-descriptions.js";
import { FileStorage } from "../storage/file-storage.js";
import { readJsonObject, type SafetensorsEntry } from "../storage/index.js";
import { parsePythonObject } from "../storage/json.js";
import { readModelFolder } from "../storage/model-folder.js";
import type { Storage } from "../storage/storage.js";
import { chooseWeights, variantsOf } from "../storage/weight-names.js";
import { sizeOf } from "../tensor/tensor.js";
import { counted, formatCount, formatTable } from "./format.js";
import { familyOf } from "./model-family.js";
import type { TensorFile } from "./open-tensor-file.js";
import { shortened } from "./printable.js";

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

/** Components with their classes, parameters and sizes, the variants there are, and what loading the pipeline says. */
export async function describePipelineFolder(dir: string, options: LoadingChoice = {}): Promise<string[]> {
  const storage = new FileStorage(dir);
  const index = await readJsonObject(join(dir, "model_index.json"));
  const rows: string[][] = [["part", "class", "parameters", "size", "type"]];
  const details: string[] = [];
  const variants = new Map<string, string[]>();
  let family: string | undefined;
  for (const [name, entry] of Object.entries(index)) {
    const className = Array.isArray(entry) ? entry[1] : undefined;
    if (name.startsWith("_") || typeof className !== "string") continue;
    const part = await readPart(storage, name, options);
    rows.push([shortened(name), shortened(className), ...(part ? part.weights.cells : ["", "", ""])]);
    for (const variant of part?.weights.variants ?? []) variants.set(variant, [...(variants.get(variant) ?? []), name]);
    if (name === "unet") family = familyOfConfig(part?.config);
    if (part && part.details.length > 0) details.push(`  ${shortened(name)}: ${part.details.join(", ")}`);
  }
  return [
    `${dir}: ${shortened(String(index._class_name))} in diffusers' layout`,
    ...(family ? [`  family ${family}`] : []),
    ...formatTable(rows, 2).map((line) => `  ${line}`),
    ...details,
    ...[...variants].map(
      ([variant, parts]) => `  variant ${shortened(variant)} of ${parts.map((each) => shortened(each)).join(", ")}`,
    ),
    ...(await judgePipeline(dir, options)).map((line) => `  ${line}`),
  ];
}

/** Class, parameters and size of one model, the variants there are, and what loading it says. */
export async function describeModel(dir: string, options: LoadingChoice = {}): Promise<string[]> {
  const config = await readJsonObject(join(dir, "config.json"));
  const className = config._class_name ?? [config.architectures].flat()[0];
  const weights = await readWeights(new FileStorage(dir), "", options);
  const family = familyOfConfig(config);
  return [
    `${dir}: ${typeof className === "string" ? shortened(className) : "model without a class name"}`,
    ...(family ? [`  family ${family}`] : []),
    `  ${weights.text}`,
    ...tellingOf(config).map((line) => `  ${line}`),
    ...weights.variants.map((variant) => `  variant ${shortened(variant)}`),
    ...(await judgeModel(dir, className, options)).map((line) => `  ${line}`),
  ];
}

/** What the command line says about loading. */
export interface LoadingChoice {
  variant?: string;
  /** Of a checkpoint in one file: what has the rest. */
  config?: string;
}

/**
 * Whether a pipeline can be loaded, by loading it as far as names, shapes and configurations go.
 *
 * @param dir - A folder or a single-file checkpoint.
 */
export async function judgePipeline(dir: string, options: LoadingChoice): Promise<string[]> {
  let pipeline: AnyPipeline;
  try {
    pipeline = await loadPipeline(dir, { ...options, dryRun: true });
  } catch (error) {
    return refusal(error, options);
  }
  const { schedulerConfig, denoiser, vae } = pipeline;
  const scheduler = problemOf(() => createScheduler(schedulerConfig));
  const training = problemOf(() => createObjective(schedulerConfig));
  const parts = [denoiser, vae, ...Object.values(pipeline.promptEncoders)];
  return [
    "fera can load it",
    ...(parts.some(({ weights }) => weights.weights.size === 0)
      ? ["some weights are pickled: their names and shapes are compared only when they are read"]
      : []),
    ...(scheduler ? [`to sample, it needs another scheduler (generate --scheduler): ${scheduler}`] : []),
    ...(training ? [`it cannot be trained: ${training}`] : []),
  ];
}

/** Whether one model can be loaded from a folder of its own or a file. */
export async function judgeModel(dir: string, className: unknown, options: LoadingChoice): Promise<string[]> {
  const known = typeof className === "string" ? KNOWN_MODELS.get(className) : undefined;
  if (!known) return [`fera has no model of this class; it has ${[...KNOWN_MODELS.keys()].join(", ")}`];
  try {
    const { weights } = await known.fromPretrained(dir, { ...options, subfolder: "", dryRun: true });
    const pickled = weights.weights.size === 0;
    return ["fera can load it", ...(pickled ? ["its weights are pickled: compared only when they are read"] : [])];
  } catch (error) {
    return refusal(error, options);
  }
}

function refusal(error: unknown, { variant }: LoadingChoice): string[] {
  if (!(error instanceof FeraError)) throw error;
  const hint = variant === undefined && /Ask for the variant "([^"]+)"/.exec(error.message)?.[1];
  return [`fera cannot load it: ${error.message}`, ...(hint ? [`try --variant ${shortened(hint)}`] : [])];
}

function problemOf(make: () => unknown): string | undefined {
  try {
    make();
    return undefined;
  } catch (error) {
    if (error instanceof FeraError) return error.message;
    throw error;
  }
}

/** The tensors of a file that is of no kind known here. */
export function describeTensors({ path, format, entries, metadata }: TensorFile): string[] {
  const keys = Object.keys(metadata);
  const shown = [...entries].slice(0, LISTED).map(([name, { shape }]) => `  ${shortened(name)} [${shape.join(",")}]`);
  return [
    `${path}: tensors; ${format}, but no adapter, no checkpoint and no LoRA that is known here`,
    `  ${counted(entries.size, "tensor")}, ${describeWeights([...entries.values()])}`,
    ...(keys.length > 0
      ? [
          `  metadata ${keys
            .slice(0, LISTED)
            .map((each) => shortened(each))
            .join(", ")}`,
        ]
      : []),
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

/** By the text features, which only denoisers have in their configuration. */
function familyOfConfig(config: Record<string, unknown> | undefined): string | undefined {
  const features = config?.cross_attention_dim;
  return typeof features === "number" ? familyOf(features) : undefined;
}

async function readPart(storage: Storage, name: string, options: LoadingChoice) {
  const names = (await storage.list(name)) ?? [];
  const file = ["config.json", "scheduler_config.json"].find((known) => names.includes(known));
  if (file === undefined) return undefined;
  const path = `${name}/${file}`;
  // What is wrong with it is said by the judgement.
  const config = await storage
    .read(path)
    .then((bytes) => parsePythonObject(bytes!, path))
    .catch(() => ({}) as Record<string, unknown>);
  const none: FoundWeights = { cells: ["", "", ""], text: "", variants: [] };
  return {
    config,
    details: tellingOf(config),
    weights: file === "config.json" ? await readWeights(storage, name, options) : none,
  };
}

function tellingOf(config: Record<string, unknown>): string[] {
  return TELLING.filter((key) => config[key] !== undefined && config[key] !== null).map((key) => {
    const value = config[key];
    return `${key} ${shortened(typeof value === "string" ? value : JSON.stringify(value))}`;
  });
}

interface FoundWeights {
  cells: [parameters: string, size: string, type: string];
  text: string;
  variants: string[];
}

/** Headers of a model's weights, of the variant that is asked for, else the plain ones, else whatever there are. */
async function readWeights(storage: Storage, subfolder: string, { variant }: LoadingChoice): Promise<FoundWeights> {
  const names = (await storage.list(subfolder)) ?? [];
  const variants = [...new Set(WEIGHT_NAMES.flatMap((weightsName) => variantsOf(names, weightsName)))];
  for (const choice of [variant, undefined, ...variants]) {
    for (const weightsName of WEIGHT_NAMES) {
      const chosen = chooseWeights(names, weightsName, choice);
      if (!chosen) continue;
      const options = { subfolder, weightsName, variant: choice };
      const folder = await readModelFolder(storage, options).catch(() => undefined);
      const which = choice !== undefined && chosen.file.includes(choice) ? `, ${choice}` : "";
      if (folder && folder.pickled.length > 0) {
        return { cells: ["", "", `pickled${which}`], text: `pickled weights${which}`, variants };
      }
      const entries = folder?.weights.flatMap((file) => [...file.entries.values()]) ?? [];
      const [parameters, size, type] = weightCells(entries);
      return { cells: [parameters, size, type + which], text: describeWeights(entries) + which, variants };
    }
  }
  return { cells: ["", "", "no weights"], text: "no weights that can be read", variants };
}

function weightCells(entries: readonly Weight[]): [parameters: string, size: string, type: string] {
  if (entries.length === 0) return ["", "", ""];
  const parameters = entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const bytes = entries.reduce((sum, { length }) => sum + length, 0);
  const types = [...new Set(entries.map(({ dtype }) => dtype))].sort();
  return [formatCount(parameters), formatBytes(bytes), types.join(", ")];
}
