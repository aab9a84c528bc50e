// Model folders over HTTP, for the browser: what `fromPretrained(url)` reads there. Everything ends up in memory.

import { registerAdapterFileAccess } from "./adapters/adapter-files.js";
import { FormatError } from "./errors.js";
import { parseMerges } from "./models/clip-tokenizer/clip-merges.js";
import { registerClipTokenizerReader } from "./models/clip-tokenizer/clip-tokenizer.js";
import type { ClipTokenizerFiles } from "./models/clip-tokenizer/clip-tokenizer-description.js";
import { type ModelFolder, registerModelFolderReader } from "./models/pretrained.js";
import { parsePythonObject, registerPipelineFolderReader } from "./pipelines/pipeline-folder.js";
import { registerSchedulerConfigReader } from "./schedulers/index.js";
import { asFloat32 } from "./storage/float32.js";
import { decodeSafetensors } from "./storage/safetensors.js";

type JsonObject = Record<string, unknown>;

registerModelFolderReader(async (dir, request) => {
  const source = joined(dir, request.subfolder);
  const config = await requiredJson(`${source}/config.json`);
  const expected = [request.expectedClass].flat();
  const named = [config._class_name ?? config.architectures].flat();
  if (!named.some((name) => expected.includes(name as string))) {
    throw new FormatError(
      `${source}/config.json`,
      `must describe a ${expected.join(" or ")}; got ${JSON.stringify(config._class_name ?? config.architectures)}.`,
    );
  }
  const weights: ModelFolder["weights"] = new Map();
  for (const file of await weightFiles(source, request.weightsName ?? "diffusion_pytorch_model", request.variant)) {
    for (const [name, value] of decodeSafetensors(await required(file), file).tensors) {
      const tensor = asFloat32(value);
      // Others are constants that the code knows: position_ids of older text encoders.
      if (tensor) weights.set(name, { shape: tensor.shape, tensor });
    }
  }
  return { source, config, weights };
});

registerPipelineFolderReader(async (dir) => {
  const source = joined(dir);
  const [index, schedulerConfig] = await Promise.all([
    requiredJson(`${source}/model_index.json`),
    requiredJson(`${source}/scheduler/scheduler_config.json`),
  ]);
  return { source, index, schedulerConfig };
});

registerSchedulerConfigReader((dir, { subfolder }) => requiredJson(`${joined(dir, subfolder)}/scheduler_config.json`));

registerClipTokenizerReader(async (dir, subfolder): Promise<ClipTokenizerFiles> => {
  const source = joined(dir, subfolder);
  const json = (name: string) => optionalJson(`${source}/${name}`);
  const [config, specialTokens, tokenizer] = await Promise.all(
    ["tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"].map(json),
  );
  if (tokenizer) return { source, tokenizer, config, specialTokens };
  const [vocab, addedTokens] = await Promise.all(["vocab.json", "added_tokens.json"].map(json));
  const merges = await fetched(`${source}/merges.txt`);
  return {
    source,
    config,
    specialTokens,
    vocab: vocab as Record<string, number> | undefined,
    addedTokens: addedTokens as Record<string, number> | undefined,
    merges: merges && parseMerges(`${source}/merges.txt`, new TextDecoder().decode(merges)),
  };
});

registerAdapterFileAccess({
  read: required,
  async write(path) {
    throw new FormatError(path, "a page cannot write files; offer encodeSafetensors(fera.stateDict()) as a download.");
  },
});

/** The weights' files: one, or what the index of the shards names. */
async function weightFiles(source: string, name: string, variant: string | undefined): Promise<string[]> {
  const stems = variant === undefined ? [name] : [`${name}.${variant}`, name];
  for (const stem of stems) {
    if (await exists(`${source}/${stem}.safetensors`)) return [`${source}/${stem}.safetensors`];
    const index = await optionalJson(`${source}/${stem}.safetensors.index.json`);
    if (!index) continue;
    const shards = new Set(Object.values((index.weight_map ?? {}) as Record<string, string>));
    return [...shards].map((shard) => `${source}/${shard}`);
  }
  throw new FormatError(source, `has no ${stems.map((stem) => `${stem}.safetensors`).join(" and no ")}.`);
}

const joined = (dir: string, subfolder?: string): string =>
  [dir.replace(/\/+$/, ""), subfolder].filter((part) => part).join("/");

async function requiredJson(url: string): Promise<JsonObject> {
  const value = await optionalJson(url);
  if (!value) throw missing(url);
  return value;
}

async function optionalJson(url: string): Promise<JsonObject | undefined> {
  const bytes = await fetched(url);
  return bytes && parsePythonObject(bytes, url);
}

async function required(url: string): Promise<Uint8Array> {
  const bytes = await fetched(url);
  if (!bytes) throw missing(url);
  return bytes;
}

const missing = (url: string): FormatError => new FormatError(url, "the server has no such file.");

async function exists(url: string): Promise<boolean> {
  return isFile(await request(url, { method: "HEAD" }));
}

/** The file's bytes; undefined where the server has none. */
async function fetched(url: string): Promise<Uint8Array | undefined> {
  const response = await request(url);
  if (!isFile(response)) {
    await response.body?.cancel();
    if (response.ok || response.status === 404) return undefined;
    throw new FormatError(url, `the server answered ${response.status} ${response.statusText}.`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

/** Servers of single-page applications answer with their page where they have no file. */
const isFile = (response: Response): boolean =>
  response.ok && !response.headers.get("content-type")?.startsWith("text/html");

async function request(url: string, options?: RequestInit): Promise<Response> {
  return fetch(url, options).catch((cause: Error) => {
    throw new FormatError(url, `cannot be fetched: ${cause.message}.`, { cause });
  });
}
