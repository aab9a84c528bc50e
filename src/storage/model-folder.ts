// One model's folder in diffusers' layout: config.json beside its weights, whole or in shards. Reads JSON and headers; of
// weights on this machine nothing else.

import { FormatError } from "../errors.js";
import { isObject, parseJson, parsePythonObject } from "./json.js";
import { openSafetensorsIn, type SafetensorsSource } from "./safetensors-source.js";
import { joined, readRequired, type Storage } from "./storage.js";
import { adviceForMissingWeights, chooseWeights, type WeightFiles, weightCandidates } from "./weight-names.js";

/** A model's configuration and where its weights lie. */
export interface ModelFolder {
  /** The folder with config.json, the subfolder included; for messages. */
  dir: string;
  config: Record<string, unknown>;
  /** One per file; no tensor is in two of them. Empty where the weights are pickled. */
  weights: SafetensorsSource[];
  /** State dicts as torch.save writes them, not yet opened; empty where the weights are safetensors. */
  pickled: PickledWeights[];
}

/** A pickled state dict. */
export interface PickledWeights {
  /** In the storage. */
  name: string;
  /** As messages name it. */
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
export async function readModelFolder(storage: Storage, options: ModelFolderOptions = {}): Promise<ModelFolder> {
  const { subfolder = "", weightsName = "diffusion_pytorch_model", variant } = options;
  const config = await readModelConfig(storage, options);
  const dir = storage.nameOf(subfolder);
  return { dir, config, ...(await findWeights(storage, subfolder, weightsName, variant)) };
}

/**
 * Reads a model's configuration alone.
 *
 * @throws {FormatError} If the folder or its config.json is missing or malformed, or it describes another class.
 */
export async function readModelConfig(
  storage: Storage,
  { subfolder = "", expectedClass }: Pick<ModelFolderOptions, "subfolder" | "expectedClass"> = {},
): Promise<Record<string, unknown>> {
  const name = joined(subfolder, "config.json");
  const bytes = await storage.read(name);
  if (!bytes) throw await withoutConfig(storage, subfolder);
  const config = parsePythonObject(bytes, storage.nameOf(name));
  if (expectedClass !== undefined) checkClass(config, [expectedClass].flat(), storage.nameOf(name));
  return config;
}

/** What is there in place of a model. */
async function withoutConfig(storage: Storage, subfolder: string): Promise<FormatError> {
  const folder = storage.nameOf(subfolder);
  const names = await storage.list(subfolder);
  if (names) {
    const hint = names.includes("model_index.json")
      ? "It is a whole pipeline: name one of its models as the subfolder."
      : "Name a model's folder in diffusers' layout.";
    return new FormatError(folder, `has no config.json; it holds ${listNames(names)}. ${hint}`);
  }
  if (!storage.local)
    return new FormatError(storage.nameOf(joined(subfolder, "config.json")), "the server has no such file.");
  const around = subfolder === "" ? undefined : await storage.list();
  const what = (await storage.exists(subfolder)) ? "is a file, but a model is a folder" : "there is no such folder";
  return new FormatError(folder, `${what}.${around ? ` ${storage.location} holds ${listNames(around)}.` : ""}`);
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
  storage: Storage,
  subfolder: string,
  weightsName: string,
  variant: string | undefined,
): Promise<Pick<ModelFolder, "weights" | "pickled">> {
  const found = await chooseFiles(storage, subfolder, weightsName, variant);
  const own = (file: string) => joined(subfolder, file);
  if (found.format === "bin") {
    const shards = found.isIndex
      ? await readIndex(storage, own(found.file), ".bin")
      : new Map([[found.file, undefined]]);
    return {
      weights: [],
      pickled: [...shards].map(([file, tensors]) => ({ name: own(file), path: storage.nameOf(own(file)), tensors })),
    };
  }
  if (!found.isIndex) return { weights: [await openSafetensorsIn(storage, own(found.file))], pickled: [] };
  const weights: SafetensorsSource[] = [];
  for (const [file, tensors] of await readIndex(storage, own(found.file), ".safetensors")) {
    const shard = await openSafetensorsIn(storage, own(file));
    checkShard(storage.nameOf(own(found.file)), file, tensors, shard.entries.keys());
    weights.push(shard);
  }
  return { weights, pickled: [] };
}

/** By the folder's list; where there is none, by asking for one after the other. */
async function chooseFiles(
  storage: Storage,
  subfolder: string,
  weightsName: string,
  variant: string | undefined,
): Promise<WeightFiles> {
  const names = await storage.list(subfolder);
  const folder = storage.nameOf(subfolder);
  if (names) {
    const found = chooseWeights(names, weightsName, variant);
    if (found) return found;
    throw new FormatError(
      folder,
      `has no ${weightsName}.safetensors; it holds ${listNames(names)}. ${adviceForMissingWeights(names, weightsName)}`,
    );
  }
  const candidates = weightCandidates(weightsName, variant);
  for (const candidate of candidates) if (await storage.exists(joined(subfolder, candidate.file))) return candidate;
  throw new FormatError(folder, `has none of ${candidates.map(({ file }) => file).join(", ")}.`);
}

/** The tensors of each shard, shards in the order of their names. */
async function readIndex(storage: Storage, name: string, ending: string): Promise<Map<string, Set<string>>> {
  const indexPath = storage.nameOf(name);
  const index = parseJson(await readRequired(storage, name), indexPath);
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

/** For messages: the names of a folder, the first of them where they are many. */
export function listNames(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  const more = names.length - LISTED_NAMES;
  return names.slice(0, LISTED_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
