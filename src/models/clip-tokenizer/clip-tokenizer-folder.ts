// Reads the tokenizer folder of a diffusers model.

import { FormatError } from "../../errors.js";
import { parsePythonObject } from "../../storage/json.js";
import { joined, type Storage } from "../../storage/storage.js";
import { parseMerges } from "./clip-merges.js";
import type { ClipTokenizerFiles } from "./clip-tokenizer-description.js";

/**
 * Reads what a tokenizer folder holds.
 *
 * @param subfolder - The tokenizer's folder; "" for the storage's own.
 * @throws {FormatError} If the folder is missing or a file is malformed.
 */
export async function readClipTokenizer(storage: Storage, subfolder: string): Promise<ClipTokenizerFiles> {
  const source = storage.nameOf(subfolder);
  if (storage.local && (await storage.list(subfolder)) === undefined) {
    throw new FormatError(source, "no such folder. Name the folder of a diffusers model that has a tokenizer.");
  }
  const json = async (file: string): Promise<Record<string, unknown> | undefined> => {
    const name = joined(subfolder, file);
    const bytes = await storage.read(name);
    return bytes && parsePythonObject(bytes, storage.nameOf(name));
  };
  const [config, specialTokens, tokenizer] = await Promise.all(
    ["tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"].map(json),
  );
  if (tokenizer) return { source, tokenizer, config, specialTokens };
  const [vocab, addedTokens] = await Promise.all(["vocab.json", "added_tokens.json"].map(json));
  const mergesName = joined(subfolder, "merges.txt");
  const merges = await storage.read(mergesName);
  return {
    source,
    config,
    specialTokens,
    vocab: vocab as Record<string, number> | undefined,
    merges: merges && parseMerges(storage.nameOf(mergesName), new TextDecoder().decode(merges)),
    addedTokens: addedTokens as Record<string, number> | undefined,
  };
}
