// Reading and writing the tokenizer folder of a diffusers model. Node only.

import { stat } from "node:fs/promises";
import path from "node:path";
import { FormatError } from "../../errors.js";
import { makeFolder, readWholeFile, writeFileAtomically } from "../../storage/file-access.js";
import { parseMerges } from "./clip-merges.js";
import { registerClipTokenizerReader } from "./clip-tokenizer.js";
import type { ClipTokenizerFiles } from "./clip-tokenizer-description.js";
import { CLIP_MAX_LENGTH } from "./clip-tokenizer-description.js";
import { CLIP_BOS_TOKEN, CLIP_EOS_TOKEN } from "./clip-words.js";

const MERGES_HEADER = "#version: 0.2";

/**
 * Reads what a tokenizer folder holds.
 *
 * @param dir - The model's folder.
 * @param subfolder - The tokenizer's folder in it; "" for `dir` itself.
 * @throws {FormatError} If the folder is missing or a file is malformed.
 */
export async function readClipTokenizer(dir: string, subfolder: string): Promise<ClipTokenizerFiles> {
  const source = path.join(dir, subfolder);
  if (!(await isFolder(source))) {
    throw new FormatError(source, "no such folder. Name the folder of a diffusers model that has a tokenizer.");
  }
  const json = (name: string) => readJsonObject(path.join(source, name));
  const config = await json("tokenizer_config.json");
  const specialTokens = await json("special_tokens_map.json");
  const tokenizer = await json("tokenizer.json");
  if (tokenizer) return { source, tokenizer, config, specialTokens };
  const merges = await readText(path.join(source, "merges.txt"));
  return {
    source,
    config,
    specialTokens,
    vocab: (await json("vocab.json")) as Record<string, number> | undefined,
    merges: merges === undefined ? undefined : parseMerges(path.join(source, "merges.txt"), merges),
    addedTokens: (await json("added_tokens.json")) as Record<string, number> | undefined,
  };
}

/** What `writeClipTokenizer` writes. */
export interface ClipVocabulary {
  /** Token to id. */
  vocab: Record<string, number>;
  /** Pairs of symbols, most frequent first. */
  merges: readonly (readonly [string, string])[];
}

/**
 * Writes a tokenizer folder that diffusers and transformers read: `vocab.json`, `merges.txt`, `tokenizer_config.json`,
 * `special_tokens_map.json`. The folder is made when it is missing.
 *
 * @param dir - The tokenizer's own folder, usually `MODEL/tokenizer`.
 * @param options - `maxLength` is L, 77 by default; `padToken` is the end token by default.
 * @throws {FormatError} If the folder cannot be written.
 */
export async function writeClipTokenizer(
  dir: string,
  options: ClipVocabulary & { maxLength?: number; padToken?: string },
): Promise<void> {
  const { vocab, merges, maxLength = CLIP_MAX_LENGTH, padToken = CLIP_EOS_TOKEN } = options;
  const special = {
    bos_token: CLIP_BOS_TOKEN,
    eos_token: CLIP_EOS_TOKEN,
    pad_token: padToken,
    unk_token: CLIP_EOS_TOKEN,
  };
  const config = {
    add_prefix_space: false,
    ...special,
    do_lower_case: true,
    errors: "replace",
    model_max_length: maxLength,
    tokenizer_class: "CLIPTokenizer",
  };
  await makeFolder(dir);
  const lines = [MERGES_HEADER, ...merges.map((pair) => pair.join(" "))];
  await writeText(path.join(dir, "vocab.json"), JSON.stringify(vocab));
  await writeText(path.join(dir, "merges.txt"), `${lines.join("\n")}\n`);
  await writeText(path.join(dir, "special_tokens_map.json"), `${JSON.stringify(special, undefined, 2)}\n`);
  await writeText(path.join(dir, "tokenizer_config.json"), `${JSON.stringify(config, undefined, 2)}\n`);
}

async function readJsonObject(file: string): Promise<Record<string, unknown> | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(file, `is not valid JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(file, "must hold a JSON object.");
  }
  return value as Record<string, unknown>;
}

/** The file's text; undefined only when there is no such file. */
async function readText(file: string): Promise<string | undefined> {
  const known = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw new FormatError(file, `cannot be read: ${error.message}`, { cause: error });
  });
  return known && new TextDecoder().decode(await readWholeFile(file));
}

async function writeText(file: string, text: string): Promise<void> {
  await writeFileAtomically(file, [new TextEncoder().encode(text)]);
}

async function isFolder(dir: string): Promise<boolean> {
  return stat(dir).then(
    (known) => known.isDirectory(),
    () => false,
  );
}

registerClipTokenizerReader(readClipTokenizer);
