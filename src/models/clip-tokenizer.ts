// CLIP's tokenizer: lower-cased byte-level BPE with an end-of-word mark, on @huggingface/tokenizers.
// Works on parsed JSON; the file access that Node registers for fromPretrained is in clip-tokenizer-files.ts.

import { Tokenizer } from "@huggingface/tokenizers";
import { ConfigError, FormatError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";

/** Tokens of every CLIP text encoder that diffusion models use, when the configuration names no length. */
export const CLIP_MAX_LENGTH = 77;

export const CLIP_BOS_TOKEN = "<|startoftext|>";
export const CLIP_EOS_TOKEN = "<|endoftext|>";
export const CLIP_END_OF_WORD = "</w>";

// Words are runs of letters, single digits, English contractions, and runs of anything else that is no white space.
const WORD_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

/** A special token, plain or as transformers serializes an AddedToken. */
export type TokenSetting = string | { content: string } | null;

/** The parsed files of a tokenizer folder; `tokenizer` wins over `vocab` and `merges`. */
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

/** One encoded prompt. */
export interface ClipEncoding {
  /** Start token, prompt, end token, padding: exactly `maxLength` ids. */
  ids: number[];
  /** How many of the ids come before the padding. */
  length: number;
  /** The end of the prompt that did not fit, as the tokens spell it; undefined when everything fitted. */
  overflow: string | undefined;
}

/** Encoded prompts. */
export interface ClipBatch {
  /** B prompts, L = `maxLength`: `[B, L]`. */
  ids: Tensor<"int64">;
  lengths: number[];
  overflows: (string | undefined)[];
}

// The package's declarations import without file endings, which NodeNext does not follow (0.2.0).
interface Bpe {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  get_vocab(withAddedTokens: boolean): Map<string, number>;
}

type ClipTokenizerReader = (dir: string, subfolder: string) => Promise<ClipTokenizerFiles>;

let reader: ClipTokenizerReader | undefined;

/** Called once by the platform's entry point. */
export function registerClipTokenizerReader(next: ClipTokenizerReader): void {
  reader = next;
}

/**
 * Turns prompts into the padded token ids that a CLIP text encoder takes.
 *
 * Text is put into NFC, white space is collapsed, letters are lowered; words are split into byte-level BPE tokens.
 *
 * @see Radford et al. 2021, arXiv:2103.00020
 */
export class CLIPTokenizer {
  /** Length of every encoding, start and end token included. */
  readonly maxLength: number;
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** One more than the largest id: the rows that a token embedding needs. */
  readonly vocabSize: number;
  readonly #bpe: Bpe;

  /**
   * @throws {FormatError} If vocabulary or merges are missing or contradict each other.
   * @throws {ConfigError} If the folder holds another kind of tokenizer.
   */
  constructor(files: ClipTokenizerFiles) {
    const { source, config = {} } = files;
    const kind = config.tokenizer_class;
    if (kind !== undefined && kind !== "CLIPTokenizer" && kind !== "CLIPTokenizerFast") {
      throw new ConfigError(`${source}: tokenizer_class must be CLIPTokenizer; got ${JSON.stringify(kind)}.`);
    }
    const special = specialTokensOf(files);
    this.maxLength = maxLengthOf(source, config);
    try {
      this.#bpe = new Tokenizer(files.tokenizer ? withPadToken(files, special) : describeBpe(files, special), {});
    } catch (cause) {
      if (cause instanceof FormatError) throw cause;
      throw new FormatError(source, `is no tokenizer that can be read: ${(cause as Error).message}`, { cause });
    }
    const vocab = this.#bpe.get_vocab(true);
    const idOf = (role: string, token: string): number => {
      const id = vocab.get(token);
      if (id === undefined) throw new FormatError(source, `the ${role} "${token}" is not in the vocabulary.`);
      return id;
    };
    this.bosTokenId = idOf("bos_token", special.bos);
    this.eosTokenId = idOf("eos_token", special.eos);
    this.padTokenId = idOf("pad_token", special.pad);
    let largest = 0;
    for (const id of vocab.values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
  }

  /**
   * Reads a tokenizer from a diffusers folder, with the platform's reader.
   *
   * @param dir - The model's folder.
   * @param options - `subfolder`: "tokenizer" by default, "tokenizer_2" for SDXL's second one, "" for `dir` itself.
   * @throws {FormatError} If the folder or a file in it is missing or malformed.
   * @throws {ConfigError} If it holds another kind of tokenizer.
   */
  static async fromPretrained(dir: string, { subfolder = "tokenizer" }: { subfolder?: string } = {}) {
    if (!reader) throw new FormatError(dir, "this platform has registered no reader of tokenizer folders.");
    return new CLIPTokenizer(await reader(dir, subfolder));
  }

  /** Encodes one prompt. What does not fit is left out and named in `overflow`. */
  encode(prompt: string): ClipEncoding {
    const { ids: words } = this.#bpe.encode(prompt, { add_special_tokens: false });
    const room = this.maxLength - 2;
    const ids = [this.bosTokenId, ...words.slice(0, room), this.eosTokenId];
    const length = ids.length;
    while (ids.length < this.maxLength) ids.push(this.padTokenId);
    return { ids, length, overflow: words.length > room ? this.decode(words.slice(room)) : undefined };
  }

  /** Encodes prompts into one tensor. */
  encodeBatch(prompts: readonly string[]): ClipBatch {
    const encodings = prompts.map((prompt) => this.encode(prompt));
    const ids = BigInt64Array.from(encodings.flatMap((encoding) => encoding.ids.map(BigInt)));
    return {
      ids: new Tensor("int64", [prompts.length, this.maxLength], ids),
      lengths: encodings.map((encoding) => encoding.length),
      overflows: encodings.map((encoding) => encoding.overflow),
    };
  }

  /** The text that ids spell: lower case, words separated by single spaces, special tokens left out. */
  decode(ids: readonly number[]): string {
    if (ids.length === 0) return "";
    return this.#bpe.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false }).trim();
  }
}

/** The words of a text as CLIP's tokenizer sees them: NFC, lower case, split at white space and between kinds. */
export function splitClipWords(text: string): string[] {
  return text.normalize("NFC").toLowerCase().match(new RegExp(WORD_PATTERN, "gu")) ?? [];
}

/**
 * The visible character that stands for each byte in byte-level BPE, in the order that CLIP's vocabulary lists them.
 *
 * Printable Latin-1 bytes stand for themselves; the others get the characters from U+0100 on.
 *
 * @returns 256 pairs of byte and symbol.
 */
export function clipByteSymbols(): [byte: number, symbol: string][] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const hidden = bytes.filter((byte) => !printable(byte));
  return [
    ...bytes.filter(printable).map((byte): [number, string] => [byte, String.fromCodePoint(byte)]),
    ...hidden.map((byte, index): [number, string] => [byte, String.fromCodePoint(0x100 + index)]),
  ];
}

interface SpecialTokens {
  bos: string;
  eos: string;
  pad: string;
  unk: string;
}

/**
 * The order that transformers follows: `special_tokens_map.json` wins over `tokenizer_config.json` (Stable Diffusion 2
 * relies on it for its "!" padding), unless the latter lists its added tokens itself, as newer folders do.
 */
function specialTokensOf({ source, config = {}, specialTokens = {} }: ClipTokenizerFiles): SpecialTokens {
  const newer = config.added_tokens_decoder !== undefined;
  const settings = newer ? { ...specialTokens, ...config } : { ...config, ...specialTokens };
  const pick = (key: string, fallback: string): string => {
    const setting = settings[key];
    if (setting === undefined || setting === null) return fallback;
    const content = typeof setting === "string" ? setting : (setting as { content?: unknown }).content;
    if (typeof content !== "string" || content === "") {
      throw new FormatError(source, `${key} must be a token; got ${JSON.stringify(setting)}.`);
    }
    return content;
  };
  const eos = pick("eos_token", CLIP_EOS_TOKEN);
  return { bos: pick("bos_token", CLIP_BOS_TOKEN), eos, pad: pick("pad_token", eos), unk: pick("unk_token", eos) };
}

function maxLengthOf(source: string, config: Record<string, unknown>): number {
  const length = config.model_max_length;
  // transformers writes 1e30 for "no limit".
  if (length === undefined || length === null || (typeof length === "number" && length > 1e9)) return CLIP_MAX_LENGTH;
  if (!Number.isInteger(length) || (length as number) < 3) {
    throw new FormatError(source, `model_max_length must be an integer of at least 3; got ${JSON.stringify(length)}.`);
  }
  return length as number;
}

/** `tokenizer.json` with the pad token among the added tokens: it is special even where the file does not say so. */
function withPadToken({ source, tokenizer = {} }: ClipTokenizerFiles, special: SpecialTokens): Record<string, unknown> {
  const model = tokenizer.model as { type?: unknown; vocab?: Record<string, number> } | undefined;
  const added = tokenizer.added_tokens;
  if (model?.type !== "BPE" || typeof model.vocab !== "object" || !Array.isArray(added)) {
    throw new FormatError(source, "tokenizer.json must describe a BPE model with a vocabulary and added tokens.");
  }
  if (added.some((token) => token.content === special.pad)) return tokenizer;
  const id = model.vocab[special.pad];
  if (id === undefined) return tokenizer;
  return { ...tokenizer, added_tokens: [...added, addedToken(id, special.pad, false)] };
}

/** What `tokenizer.json` would say about a folder that has only `vocab.json` and `merges.txt`. */
function describeBpe(files: ClipTokenizerFiles, special: SpecialTokens): Record<string, unknown> {
  const { source, vocab, merges, config = {} } = files;
  if (!vocab || !merges) {
    throw new FormatError(source, "needs tokenizer.json, or vocab.json and merges.txt; found neither.");
  }
  checkVocabulary(source, vocab, merges);
  const added = new Map<string, Record<string, unknown>>();
  const add = (content: string, id: number | undefined, normalized: boolean) => {
    if (id !== undefined && !added.has(content)) added.set(content, addedToken(id, content, normalized));
  };
  const ids: Record<string, number> = { ...vocab, ...files.addedTokens };
  for (const token of [special.bos, special.eos]) add(token, ids[token], true);
  for (const token of [special.pad, special.unk]) add(token, ids[token], false);
  for (const [token, id] of Object.entries(files.addedTokens ?? {})) add(token, id, true);
  const listed = (config.added_tokens_decoder ?? {}) as Record<string, { content?: string; normalized?: boolean }>;
  for (const [id, token] of Object.entries(listed)) {
    if (typeof token?.content === "string") add(token.content, Number(id), token.normalized ?? true);
  }
  return {
    added_tokens: [...added.values()],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: WORD_PATTERN }, behavior: "Removed", invert: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: special.unk,
      continuing_subword_prefix: "",
      end_of_word_suffix: CLIP_END_OF_WORD,
      fuse_unk: false,
      vocab,
      merges,
    },
  };
}

function addedToken(id: number, content: string, normalized: boolean): Record<string, unknown> {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized, special: true };
}

function checkVocabulary(
  source: string,
  vocab: Record<string, number>,
  merges: readonly (readonly [string, string])[],
): void {
  const seen = new Set<number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!Number.isSafeInteger(id) || id < 0 || seen.has(id)) {
      throw new FormatError(
        source,
        `vocab.json: ids must be distinct non-negative integers; got ${id} for "${token}".`,
      );
    }
    seen.add(id);
  }
  for (const [left, right] of merges) {
    if (!Object.hasOwn(vocab, left + right)) {
      throw new FormatError(
        source,
        `merges.txt joins "${left}" and "${right}", but vocab.json lacks "${left + right}".`,
      );
    }
  }
}
