// Writes the tokenizer folder of a diffusers model. Node only.

import path from "node:path";
import { CLIP_MAX_LENGTH } from "../../src/models/clip-tokenizer/clip-tokenizer-description.js";
import { CLIP_BOS_TOKEN, CLIP_EOS_TOKEN } from "../../src/models/clip-tokenizer/clip-words.js";
import { makeFolder, writeFileAtomically } from "../../src/storage/file-access.js";

const MERGES_HEADER = "#version: 0.2";

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

async function writeText(file: string, text: string): Promise<void> {
  await writeFileAtomically(file, [new TextEncoder().encode(text)]);
}
