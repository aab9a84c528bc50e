// One model's folder in diffusers' layout: config.json beside its weights, whole or in shards. Node only.
// Reads headers and JSON; the weights stay on disk.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../errors.js";
import { readWholeFile } from "./file-access.js";
import { isObject } from "./json-object.js";
import { type OpenedSafetensors, openSafetensors } from "./safetensors-file.js";
import { adviceForMissingWeights, chooseWeights } from "./weight-files.js";

/** A model's configuration and where its weights lie. */
export interface ModelFolder {
  /** The folder with config.json, the subfolder included. */
  dir: string;
  config: Record<string, unknown>;
  /** One per file; no tensor is in two of them. Empty where the weights are pickled. */
  weights: OpenedSafetensors[];
  /** State dicts as torch.save writes them, not yet opened; empty where the weights are safetensors. */
  pickled: PickledWeights[];
}

/** A pickled state dict. */
export interface PickledWeights {
  path: string;
  /** What the index of the shards says is in this one; undefined for a single file. */
  tensors: ReadonlySet<string> | undefined;
}

export interface ModelFolderOptions {
  /** Folder of the model inside a pipeline's folder, for example "unet". */
  subfolder?: string | undefined;
  /** What config.json may name as `_class_name` (or, like transformers, in `architectures`). */
  expectedClass?: string | readonly string[] | undefined;
  /** File name of the weights without ending; "model" for text encoders. Default "diffusion_pytorch_model". */
  weightsName?: string | undefined;
  /** Prefers the weights saved under this variant, for example "fp16", where the folder has them. */
  variant?: string | undefined;
}

const LISTED_NAMES = 20;

/**
 * Finds a model's configuration and weights.
 *
 * Looks for NAME.safetensors, then for the shards that NAME.safetensors.index.json lists, then for .bin files likewise.
 *
 * @throws {FormatError} If the folder, its config.json or its weights are missing or malformed, if it holds another
 *   class of model, or if its weights come in another format; the message says what is there and what to do.
 */
export async function readModelFolder(dir: string, options: ModelFolderOptions = {}): Promise<ModelFolder> {
  const { weightsName = "diffusion_pytorch_model", variant } = options;
  const { folder, names, config } = await readConfig(dir, options);
  return { dir: folder, config, ...(await findWeights(folder, names, weightsName, variant)) };
}

/**
 * Reads a model's configuration alone.
 *
 * @throws {FormatError} If the folder or its config.json is missing or malformed, or it describes another class.
 */
export async function readModelConfig(
  dir: string,
  options: Pick<ModelFolderOptions, "subfolder" | "expectedClass"> = {},
): Promise<Record<string, unknown>> {
  return (await readConfig(dir, options)).config;
}

async function readConfig(dir: string, { subfolder, expectedClass }: ModelFolderOptions) {
  const folder = subfolder ? join(dir, subfolder) : dir;
  const names = await listFolder(folder, dir);
  if (!names.includes("config.json")) {
    const hint = names.includes("model_index.json")
      ? "It is a whole pipeline: name one of its models as the subfolder."
      : "Name a model's folder in diffusers' layout.";
    throw new FormatError(folder, `has no config.json; it holds ${listNames(names)}. ${hint}`);
  }
  const configPath = join(folder, "config.json");
  const config = await readJsonObject(configPath);
  if (expectedClass !== undefined) checkClass(config, [expectedClass].flat(), configPath);
  return { folder, names, config };
}

/**
 * Reads a JSON file.
 *
 * @throws {FormatError} If it is missing, not UTF-8 or not JSON.
 */
export async function readJson(path: string): Promise<unknown> {
  const bytes = await readWholeFile(path);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError(path, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
}

/**
 * Reads a JSON file that holds an object.
 *
 * @throws {FormatError} As {@link readJson}, and if it holds anything else.
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const value = await readJson(path);
  if (!isObject(value)) throw new FormatError(path, "must hold a JSON object.");
  return value;
}

async function listFolder(folder: string, parent: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const there = folder === parent ? undefined : await readdir(parent).catch(() => undefined);
    const around = there ? ` ${parent} holds ${listNames(there.sort())}.` : "";
    const what =
      code === "ENOENT"
        ? "there is no such folder"
        : code === "ENOTDIR"
          ? "is a file, but a model is a folder"
          : message;
    throw new FormatError(folder, `${what}.${around}`, { cause });
  }
}

function checkClass(config: Record<string, unknown>, expected: readonly string[], path: string): void {
  const [key, value] = Object.hasOwn(config, "_class_name")
    ? ["_class_name", config._class_name]
    : ["architectures", config.architectures];
  const found = [value].flat();
  if (found.some((name) => typeof name === "string" && expected.includes(name))) return;
  const got = value === undefined ? "neither _class_name nor architectures" : `${key} ${JSON.stringify(value)}`;
  throw new FormatError(path, `must describe a ${expected.join(" or ")}; got ${got}. Name that model's folder.`);
}

async function findWeights(
  folder: string,
  names: readonly string[],
  weightsName: string,
  variant: string | undefined,
): Promise<Pick<ModelFolder, "weights" | "pickled">> {
  const found = chooseWeights(names, weightsName, variant);
  if (!found) {
    throw new FormatError(
      folder,
      `has no ${weightsName}.safetensors; it holds ${listNames(names)}. ${adviceForMissingWeights(names, weightsName)}`,
    );
  }
  const path = join(folder, found.file);
  if (found.format === "bin") {
    if (!found.isIndex) return { weights: [], pickled: [{ path, tensors: undefined }] };
    const shards = await readIndex(path, ".bin");
    const pickled = [...shards].map(([file, tensors]) => ({ path: join(folder, file), tensors }));
    return { weights: [], pickled };
  }
  if (!found.isIndex) return { weights: [await openSafetensors(path)], pickled: [] };
  const weights: OpenedSafetensors[] = [];
  for (const [file, tensors] of await readIndex(path, ".safetensors")) {
    const shard = await openSafetensors(join(folder, file));
    checkShard(path, file, tensors, shard.entries.keys());
    weights.push(shard);
  }
  return { weights, pickled: [] };
}

/** The tensors of each shard, shards in the order of their names. */
async function readIndex(indexPath: string, ending: string): Promise<Map<string, Set<string>>> {
  const index = await readJson(indexPath);
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) throw new FormatError(indexPath, "must hold a weight_map from tensor names to files.");
  const shards = new Map<string, Set<string>>();
  for (const [tensor, file] of Object.entries(map)) {
    // A path could lead out of the folder.
    if (typeof file !== "string" || !file.endsWith(ending) || /[/\\\0]/.test(file)) {
      throw new FormatError(
        indexPath,
        `weight_map must name ${ending} files of its own folder; "${tensor}" has ${JSON.stringify(file)}.`,
      );
    }
    const tensors = shards.get(file) ?? new Set();
    shards.set(file, tensors.add(tensor));
  }
  if (shards.size === 0) throw new FormatError(indexPath, "weight_map is empty.");
  return new Map([...shards].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Compares a shard with what its index says of it.
 *
 * @param source - The index, or the shard where that is not known.
 * @throws {FormatError} If a tensor is missing, or there that should be elsewhere.
 */
export function checkShard(source: string, file: string, expected: ReadonlySet<string>, found: Iterable<string>): void {
  const missing = new Set(expected);
  for (const tensor of found) {
    if (!missing.delete(tensor)) {
      throw new FormatError(source, `"${tensor}" is in ${file}, but weight_map has it elsewhere or not at all.`);
    }
  }
  for (const tensor of missing) {
    throw new FormatError(source, `"${tensor}" should be in ${file}, but is not. Fetch the shards again.`);
  }
}

function listNames(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  const more = names.length - LISTED_NAMES;
  return names.slice(0, LISTED_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
