// One model's folder in diffusers' layout: config.json beside its safetensors weights, whole or in shards. Node only.
// Reads headers and JSON; the weights stay on disk.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../errors.js";
import { readWholeFile } from "./file-access.js";
import { type OpenedSafetensors, openSafetensors } from "./safetensors-file.js";

/** A model's configuration and where its weights lie. */
export interface ModelFolder {
  /** The folder with config.json, the subfolder included. */
  dir: string;
  config: Record<string, unknown>;
  /** One per file; no tensor is in two of them. */
  weights: OpenedSafetensors[];
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
 * Looks for NAME.safetensors, then for the shards that NAME.safetensors.index.json lists.
 *
 * @throws {FormatError} If the folder, its config.json or its weights are missing or malformed, if it holds another
 *   class of model, or if its weights come in another format; the message says what is there and what to do.
 */
export async function readModelFolder(dir: string, options: ModelFolderOptions = {}): Promise<ModelFolder> {
  const { subfolder, expectedClass, weightsName = "diffusion_pytorch_model", variant } = options;
  const folder = subfolder ? join(dir, subfolder) : dir;
  const names = await listFolder(folder, dir);
  if (!names.includes("config.json")) {
    const hint = names.includes("model_index.json")
      ? "It is a whole pipeline: name one of its models as the subfolder."
      : "Name a model's folder in diffusers' layout.";
    throw new FormatError(folder, `has no config.json; it holds ${listNames(names)}. ${hint}`);
  }
  const configPath = join(folder, "config.json");
  const config = await readJson(configPath);
  if (!isObject(config)) throw new FormatError(configPath, "must hold a JSON object.");
  if (expectedClass !== undefined) checkClass(config, [expectedClass].flat(), configPath);
  return { dir: folder, config, weights: await findWeights(folder, names, weightsName, variant) };
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
): Promise<OpenedSafetensors[]> {
  // diffusers and transformers have put a variant into an index's name at three places.
  const candidates = [`${weightsName}.safetensors`, `${weightsName}.safetensors.index.json`];
  if (variant) {
    candidates.unshift(
      `${weightsName}.${variant}.safetensors`,
      `${weightsName}.safetensors.index.${variant}.json`,
      `${weightsName}.safetensors.${variant}.index.json`,
      `${weightsName}.${variant}.safetensors.index.json`,
    );
  }
  const found = candidates.find((name) => names.includes(name));
  if (!found) {
    throw new FormatError(
      folder,
      `has no ${weightsName}.safetensors; it holds ${listNames(names)}. ${adviceFor(names, weightsName)}`,
    );
  }
  if (found.endsWith(".json")) return openShards(folder, found);
  return [await openSafetensors(join(folder, found))];
}

function adviceFor(names: readonly string[], weightsName: string): string {
  const variants = names
    .filter((name) => name.startsWith(`${weightsName}.`) && name.endsWith(".safetensors"))
    .map((name) => name.slice(weightsName.length + 1, -".safetensors".length))
    .filter((variant) => variant !== "" && !variant.includes("."));
  if (variants.length > 0) return `Ask for the variant "${variants[0]}", or fetch the plain weights.`;
  if (names.some((name) => /\.(bin|pt|pth|ckpt)(\.index\.json)?$/.test(name))) {
    return "PyTorch's pickled weights are not read here: convert them to safetensors (diffusers: save_pretrained).";
  }
  return "Fetch the model's safetensors weights into this folder.";
}

async function openShards(folder: string, indexName: string): Promise<OpenedSafetensors[]> {
  const indexPath = join(folder, indexName);
  const index = await readJson(indexPath);
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) throw new FormatError(indexPath, "must hold a weight_map from tensor names to files.");
  const fileOf = new Map<string, string>();
  for (const [tensor, file] of Object.entries(map)) {
    // A path could lead out of the folder.
    if (typeof file !== "string" || !file.endsWith(".safetensors") || /[/\\\0]/.test(file)) {
      throw new FormatError(
        indexPath,
        `weight_map must name .safetensors files of its own folder; "${tensor}" has ${JSON.stringify(file)}.`,
      );
    }
    fileOf.set(tensor, file);
  }
  const files = [...new Set(fileOf.values())].sort();
  if (files.length === 0) throw new FormatError(indexPath, "weight_map is empty.");
  const shards: OpenedSafetensors[] = [];
  for (const file of files) {
    const shard = await openSafetensors(join(folder, file));
    for (const tensor of shard.entries.keys()) {
      if (fileOf.get(tensor) !== file) {
        throw new FormatError(indexPath, `"${tensor}" is in ${file}, but weight_map has it in ${fileOf.get(tensor)}.`);
      }
      fileOf.delete(tensor);
    }
    shards.push(shard);
  }
  for (const [tensor, file] of fileOf) {
    throw new FormatError(indexPath, `"${tensor}" should be in ${file}, but is not. Fetch the shards again.`);
  }
  return shards;
}

function listNames(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  const more = names.length - LISTED_NAMES;
  return names.slice(0, LISTED_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
