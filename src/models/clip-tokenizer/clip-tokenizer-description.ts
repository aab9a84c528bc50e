// Makes one description of a CLIP tokenizer, in the form of tokenizer.json, of whatever files a model's folder has.
// Follows transformers 5: of tokenizer.json only vocabulary, merges and added tokens count, all else is CLIP's own.

import { ConfigError, FormatError } from "../../errors.js";
import { isObject, quote } from "../../storage/json.js";
import { CLIP_BOS_TOKEN, CLIP_END_OF_WORD, CLIP_EOS_TOKEN, CLIP_WORD_PATTERN } from "./clip-words.js";

/** The parsed files of a tokenizer folder; vocabulary and merges of `tokenizer` win over `vocab` and `merges`. */
export interface ClipTokenizerFiles {
  /** Names the folder in error messages. */
  source: string;
  /** `tokenizer.json`. */
  tokenizer?: Record<string, unknown>;
  /** `vocab.json`: token to id. */
  vocab?: Record<string, number>;
  /** `merges.txt`: pairs of symbols, most frequent first. */
  merges?: readonly (readonly [string, string])[];
  /** `tokenizer_config.json`. */
  config?: Record<string, unknown>;
  /** `special_tokens_map.json`. */
  specialTokens?: Record<string, unknown>;
  /** `added_tokens.json`: token to id. */
  addedTokens?: Record<string, number>;
}

/** Tokens of every CLIP text encoder that diffusion models use, when the configuration names no length. */
export const CLIP_MAX_LENGTH = 77;
/** Tables of so many rows are made of a vocabulary's ids; no text encoder has more. */
const MAX_ID = 2 ** 20 - 1;
/** Every encoding is padded to this length. */
const MAX_LENGTH = 2 ** 16;

/** The special tokens of a tokenizer. */
export interface ClipSpecialTokens {
  bos: string;
  eos: string;
  pad: string;
  unk: string;
}

/** What the files of a tokenizer folder say. */
export interface ClipTokenizerDescription {
  /** In the form of `tokenizer.json`. */
  description: Record<string, unknown>;
  special: ClipSpecialTokens;
  /** Length of every encoding, start and end token included. */
  maxLength: number;
}

/** A token that is found in a text before it is split into words. */
interface AddedToken {
  id: number;
  content: string;
  lstrip: boolean;
  rstrip: boolean;
  /** Whether it is looked for after lower-casing. */
  normalized: boolean;
  single_word: boolean;
  special: boolean;
}

/** A vocabulary, and which pairs of its symbols are joined, most frequent first. */
export interface Bpe {
  /** Names the files in messages. */
  names: { vocab: string; merges: string };
  vocab: Record<string, number>;
  merges: readonly (readonly [string, string])[];
}

type Settings = Record<string, unknown>;

/**
 * Reads the files of a tokenizer folder.
 *
 * @throws {FormatError} If vocabulary or merges are missing or contradict each other, or a setting is malformed.
 * @throws {ConfigError} If the folder holds another kind of tokenizer.
 */
export function describeClipTokenizer(files: ClipTokenizerFiles): ClipTokenizerDescription {
  const { source, config = {} } = files;
  refuseOtherKinds(source, config);
  const bpe = bpeOf(files, CLIP_END_OF_WORD);
  checkVocabulary(source, bpe);
  const settings = settingsOf(files);
  const special = specialTokensOf(source, settings);
  const added = addedTokensOf(files, settings, special, bpe.vocab);
  return { description: describe(bpe, special, added), special, maxLength: maxLengthOf(source, config) };
}

function refuseOtherKinds(source: string, config: Settings): void {
  const supported: [key: string, values: string[]][] = [
    ["tokenizer_class", ["CLIPTokenizer", "CLIPTokenizerFast"]],
    ["padding_side", ["right"]],
    ["truncation_side", ["right"]],
  ];
  for (const [key, values] of supported) {
    const value = config[key];
    if (value === undefined || value === null || values.includes(value as string)) continue;
    throw new ConfigError(`${source}: ${key} must be ${values.join(" or ")}; got ${JSON.stringify(value)}.`);
  }
}

/**
 * Vocabulary and merges of byte-level BPE, of `tokenizer.json` or of `vocab.json` and `merges.txt`.
 *
 * @param endOfWord - What the last symbol of a word has behind it; "" where nothing.
 * @throws {FormatError} If they are missing.
 * @throws {ConfigError} If `tokenizer.json` marks the ends of words otherwise.
 */
export function bpeOf({ source, tokenizer, vocab, merges }: ClipTokenizerFiles, endOfWord: string): Bpe {
  if (!tokenizer) {
    if (vocab && merges) return { names: { vocab: "vocab.json", merges: "merges.txt" }, vocab, merges };
    throw new FormatError(source, "needs tokenizer.json, or vocab.json and merges.txt; found neither.");
  }
  const model = (tokenizer.model ?? {}) as Record<string, unknown>;
  const isBpe = (model.type ?? "BPE") === "BPE" && isObject(model.vocab) && Array.isArray(model.merges);
  if (!isBpe || !Array.isArray(tokenizer.added_tokens)) {
    throw new FormatError(source, "tokenizer.json must describe a BPE model: vocab, merges and added_tokens.");
  }
  const suffix = model.end_of_word_suffix ?? "";
  if (suffix !== endOfWord) {
    throw new ConfigError(
      `${source}: tokenizer.json: end_of_word_suffix must be "${endOfWord}", as in this model's tokenizer; ` +
        `got ${JSON.stringify(suffix)}.`,
    );
  }
  const pairs = (model.merges as unknown[]).map((merge): [string, string] => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (Array.isArray(pair) && pair.length === 2 && pair.every((symbol) => typeof symbol === "string" && symbol)) {
      return pair as [string, string];
    }
    throw new FormatError(source, `tokenizer.json: a merge must be two symbols; got ${JSON.stringify(merge)}.`);
  });
  const names = { vocab: "tokenizer.json", merges: "tokenizer.json" };
  return { names, vocab: model.vocab as Record<string, number>, merges: pairs };
}

/** @throws {FormatError} If ids are none or occur twice, or a merge joins what the vocabulary does not have. */
export function checkVocabulary(source: string, { names, vocab, merges }: Bpe): void {
  const seen = new Set<number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isId(id) || seen.has(id)) {
      throw new FormatError(
        source,
        `${names.vocab}: ids must be distinct integers from 0 to ${MAX_ID}; got ${id} for ${quote(token)}.`,
      );
    }
    seen.add(id);
  }
  for (const [left, right] of merges) {
    if (!Object.hasOwn(vocab, left + right)) {
      throw new FormatError(
        source,
        `${names.merges} joins "${left}" and "${right}", but ${names.vocab} lacks "${left + right}".`,
      );
    }
  }
}

/**
 * `special_tokens_map.json` wins over `tokenizer_config.json` (Stable Diffusion 2 relies on it for its "!" padding),
 * unless the latter lists its added tokens itself, as newer folders do: then the map is not read.
 */
function settingsOf({ config = {}, specialTokens = {} }: ClipTokenizerFiles): Settings {
  return config.added_tokens_decoder === undefined ? { ...config, ...specialTokens } : config;
}

function specialTokensOf(source: string, settings: Settings): ClipSpecialTokens {
  const pick = (key: string, fallback: string): string => {
    const setting = settings[key];
    if (setting === undefined || setting === null) return fallback;
    const content = contentOf(setting);
    if (content) return content;
    throw new FormatError(source, `${key} must be a token; got ${JSON.stringify(setting)}.`);
  };
  return {
    bos: pick("bos_token", CLIP_BOS_TOKEN),
    eos: pick("eos_token", CLIP_EOS_TOKEN),
    pad: pick("pad_token", CLIP_EOS_TOKEN),
    unk: pick("unk_token", CLIP_EOS_TOKEN),
  };
}

/**
 * The listed tokens (`added_tokens_decoder`, else `added_tokens.json` and those of `tokenizer.json`), then the special
 * ones that no list has; where two roles have the same token, the later one's flags hold. Whether the roles' tokens are
 * in the vocabulary is checked where their ids are needed.
 */
function addedTokensOf(
  { source, tokenizer, config = {}, addedTokens = {} }: ClipTokenizerFiles,
  settings: Settings,
  special: ClipSpecialTokens,
  vocab: Record<string, number>,
): AddedToken[] {
  const named = new Set<string>(Object.values(special));
  const extra = [settings.extra_special_tokens, settings.additional_special_tokens].find(Array.isArray) ?? [];
  for (const setting of extra) named.add(contentOf(setting) ?? "");
  const added = new Map<string, AddedToken>();
  const add = (setting: unknown, listedId: number | undefined): void => {
    const content = contentOf(setting);
    if (!content) throw new FormatError(source, `an added token must have a content; got ${JSON.stringify(setting)}.`);
    const id = listedId ?? vocab[content];
    if (id === undefined) return;
    if (!isId(id)) {
      throw new FormatError(
        source,
        `ids must be integers from 0 to ${MAX_ID}; got ${id} for the added token ${quote(content)}.`,
      );
    }
    if ((vocab[content] ?? id) !== id) {
      throw new FormatError(source, `the added token "${content}" has the id ${id}, the vocabulary ${vocab[content]}.`);
    }
    const flags = typeof setting === "string" ? {} : (setting as Partial<AddedToken>);
    const { lstrip = false, rstrip = false, single_word = false } = flags;
    const isSpecial = named.has(content) || (flags.special ?? typeof setting === "string");
    const normalized = flags.normalized ?? !isSpecial;
    added.set(content, { id, content, lstrip, rstrip, normalized, single_word, special: isSpecial });
  };
  if (isObject(config.added_tokens_decoder)) {
    for (const [id, token] of Object.entries(config.added_tokens_decoder)) add(token, Number(id));
  } else {
    for (const [content, id] of Object.entries(addedTokens)) add({ content, special: false }, id);
    for (const token of (tokenizer?.added_tokens ?? []) as { id: number }[]) add(token, token.id);
  }
  const listed = new Set(added.keys());
  const roles = (["bos", "eos", "unk", "pad"] as const).map((role) => settings[`${role}_token`] ?? special[role]);
  for (const setting of extra) {
    const content = contentOf(setting) ?? "";
    if (listed.has(content) || Object.hasOwn(vocab, content)) continue;
    throw new ConfigError(
      `${source}: the special token ${JSON.stringify(setting)} has no id. List it in added_tokens.json with its id, ` +
        "or take it out of additional_special_tokens.",
    );
  }
  for (const setting of [...roles, ...extra]) {
    if (!listed.has(contentOf(setting) ?? "")) add(setting, undefined);
  }
  return [...added.values()].sort((a, b) => a.id - b.id);
}

function maxLengthOf(source: string, config: Settings): number {
  const length = config.model_max_length ?? config.max_len;
  // transformers writes 1e30 for "no limit".
  if (length === undefined || length === null || (typeof length === "number" && length > 1e9)) return CLIP_MAX_LENGTH;
  if (!Number.isInteger(length) || (length as number) < 3 || (length as number) > MAX_LENGTH) {
    throw new FormatError(
      source,
      `model_max_length must be an integer from 3 to ${MAX_LENGTH}; got ${JSON.stringify(length)}.`,
    );
  }
  return length as number;
}

function describe({ vocab, merges }: Bpe, { unk }: ClipSpecialTokens, added: AddedToken[]): Record<string, unknown> {
  const split = (regex: string) => ({ type: "Split", pattern: { Regex: regex }, behavior: "Removed", invert: true });
  // @huggingface/tokenizers 0.2.0 takes a lowered stretch of text that equals an added token for that token, even if
  // the token is to be found before lower-casing only; a space in front prevents that.
  const contents = added.filter((token) => !token.normalized).map((token) => escapeForPattern(token.content));
  const withSpace = { type: "Replace", pattern: { Regex: `^(?=(?:${contents.join("|")})$)` }, content: " " };
  const marks = [CLIP_BOS_TOKEN, CLIP_EOS_TOKEN].map(escapeForPattern);
  return {
    added_tokens: added,
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        // The tokenizers library lowers letter by letter; toLowerCase() would write ς for a Σ at a word's end.
        { type: "Replace", pattern: { String: "Σ" }, content: "σ" },
        { type: "Lowercase" },
        ...(contents.length > 0 ? [withSpace] : []),
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        // A mark that is no added token, because a prompt has it in capitals, is kept from joining its neighbours and
        // then split like other text.
        split(`${marks.join("|")}|${CLIP_WORD_PATTERN}`),
        split(CLIP_WORD_PATTERN),
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: unk,
      continuing_subword_prefix: "",
      end_of_word_suffix: CLIP_END_OF_WORD,
      fuse_unk: false,
      vocab,
      merges,
    },
  };
}

const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id <= MAX_ID;

function escapeForPattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

function contentOf(setting: unknown): string | undefined {
  const content = isObject(setting) ? setting.content : setting;
  return typeof content === "string" && content !== "" ? content : undefined;
}
