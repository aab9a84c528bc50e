// Reads the folder of a T5 tokenizer: tokenizer.json, or spiece.model where there is none.

import { ConfigError, FormatError, quoted } from "../../errors.js";
import { isObject, parsePythonObject } from "../../storage/json.js";
import { joined, type Storage } from "../../storage/storage.js";
import { parseSentencePiece, type SentencePieceModel } from "./sentencepiece-file.js";
import type { Piece } from "./unigram.js";

/** What a tokenizer is made of. */
export interface T5TokenizerFiles extends SentencePieceModel {
  /** Names the file in messages. */
  source: string;
  /** Tokens that are found in a text as they stand, with their ids. */
  added: ReadonlyMap<string, number>;
  /** `tokenizer_config.json`. */
  config?: Record<string, unknown> | undefined;
}

/** As much as a published vocabulary has, many times over. */
const MAX_BYTES = 2 ** 27;
const CLASSES: readonly unknown[] = ["T5Tokenizer", "T5TokenizerFast"];
/** Normalizers of tokenizer.json that change nothing where words are cut at white space. */
const OF_SPACES: readonly unknown[] = ["Strip", "Replace"];

/**
 * Reads what a tokenizer's folder holds.
 *
 * @throws {FormatError} If the folder or a file is missing or malformed.
 * @throws {ConfigError} If it holds another kind of tokenizer.
 */
export async function readT5Tokenizer(storage: Storage, subfolder: string): Promise<T5TokenizerFiles> {
  const folder = storage.nameOf(subfolder);
  if (storage.local && (await storage.list(subfolder)) === undefined) {
    throw new FormatError(folder, "no such folder. Name the folder of a model that has a tokenizer.");
  }
  const read = async (file: string): Promise<{ bytes: Uint8Array; source: string } | undefined> => {
    const name = joined(subfolder, file);
    const bytes = await storage.read(name);
    if (bytes && bytes.length > MAX_BYTES)
      throw new FormatError(storage.nameOf(name), `has more than ${MAX_BYTES} bytes.`);
    return bytes && { bytes, source: storage.nameOf(name) };
  };
  const configFile = await read("tokenizer_config.json");
  const config = configFile && parsePythonObject(configFile.bytes, configFile.source);
  refuseOtherKinds(configFile?.source ?? folder, config ?? {});
  const json = await read("tokenizer.json");
  if (json)
    return { ...describe(parsePythonObject(json.bytes, json.source), json.source), source: json.source, config };
  const model = await read("spiece.model");
  if (!model) throw new FormatError(folder, "needs tokenizer.json or spiece.model; found neither.");
  return { ...parseSentencePiece(model.bytes, model.source), source: model.source, added: new Map(), config };
}

function refuseOtherKinds(source: string, config: Record<string, unknown>): void {
  const {
    tokenizer_class: kind = "T5Tokenizer",
    padding_side: side = "right",
    truncation_side: cut = "right",
  } = config;
  if (!CLASSES.includes(kind)) {
    throw new ConfigError(`${source}: tokenizer_class must be ${CLASSES.join(" or ")}; got ${quoted(kind)}.`);
  }
  for (const [key, value] of Object.entries({ padding_side: side, truncation_side: cut })) {
    if (value !== "right") throw new ConfigError(`${source}: ${key} must be right; got ${quoted(value)}.`);
  }
}

/** tokenizer.json: of its parts the model, the map of characters and the added tokens count; words are cut as T5 does. */
function describe(
  tokenizer: Record<string, unknown>,
  source: string,
): SentencePieceModel & Pick<T5TokenizerFiles, "added"> {
  const model = isObject(tokenizer.model) ? tokenizer.model : {};
  const { vocab, unk_id: unknownId, type = "Unigram", byte_fallback: bytes = false } = model;
  if (type !== "Unigram" || !Array.isArray(vocab)) {
    throw new ConfigError(`${source}: model.type must be Unigram, with a list vocab; got ${quoted(type)}.`);
  }
  if (bytes !== false) throw new ConfigError(`${source}: byte_fallback must be false; got ${quoted(bytes)}.`);
  const pieces = vocab.map((entry: unknown, id): Piece => {
    const [piece, score, ...rest] = Array.isArray(entry) ? entry : [];
    if (typeof piece === "string" && typeof score === "number" && rest.length === 0) return [piece, score];
    throw new FormatError(source, `vocab entry ${id} must be a piece and its score; got ${quoted(entry)}.`);
  });
  const added = new Map<string, number>();
  for (const entry of Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens : []) {
    const { content, id } = (isObject(entry) ? entry : {}) as { content?: unknown; id?: unknown };
    if (typeof content !== "string" || content === "" || !Number.isInteger(id)) {
      throw new FormatError(source, `an added token must have content and id; got ${quoted(entry)}.`);
    }
    added.set(content, id as number);
  }
  return { pieces, unknownId: unknownId as number, charsmap: charsmapOf(tokenizer.normalizer, source), added };
}

function charsmapOf(normalizer: unknown, source: string): Uint8Array {
  if (normalizer === null || normalizer === undefined) return new Uint8Array();
  const {
    type,
    normalizers,
    precompiled_charsmap: map,
  } = (isObject(normalizer) ? normalizer : {}) as Record<string, unknown>;
  const members = type === "Sequence" && Array.isArray(normalizers) ? normalizers : undefined;
  if (members) {
    const others = members.filter((member) => !(isObject(member) && OF_SPACES.includes(member.type)));
    if (others.length <= 1) return charsmapOf(others[0], source);
  }
  if (type !== "Precompiled" || (map !== null && typeof map !== "string")) {
    throw new ConfigError(`${source}: the normalizer must be a Precompiled one; got ${quoted(normalizer)}.`);
  }
  try {
    return Uint8Array.from(atob(map ?? ""), (character) => character.charCodeAt(0));
  } catch (cause) {
    throw new FormatError(source, "precompiled_charsmap is not base64.", { cause });
  }
}
