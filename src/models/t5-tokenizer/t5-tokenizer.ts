// T5's tokenizer: unigrams over words that begin with ▁. Works on what t5-tokenizer-folder.ts has read. The tokenizers package
// knows SentencePiece's map of characters only roughly, so that ids would differ; what is needed of it is here.

import { ConfigError, FormatError, quoted } from "../../errors.js";
import type { HubOptions } from "../../storage/hub/hub-options.js";
import { openStorage } from "../../storage/storage.js";
import { cutAtTokens, MAX_PROMPT_CHARACTERS, type TokenEncoding } from "../token-encoding.js";
import { charsmapNormalizer, type Normalizer } from "./charsmap.js";
import { readT5Tokenizer, type T5TokenizerFiles } from "./t5-tokenizer-folder.js";
import { Unigram } from "./unigram.js";

/** Stands for the space before a word. */
const SPACE = "▁";
const EXTRA_IDS = 100;
/** What T5's models were trained with, when the configuration names no length. */
const DEFAULT_LENGTH = 512;
const MAX_LENGTH = 2 ** 16;

/**
 * Turns prompts into the token ids that a T5 encoder takes: pieces, `</s>`, padding.
 *
 * @see Raffel et al. 2020, arXiv:1910.10683; Kudo & Richardson 2018, arXiv:1808.06226
 */
export class T5Tokenizer {
  /** Length of an encoding unless another is asked for, `</s>` included. */
  readonly maxLength: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** The rows that a token embedding needs. */
  readonly vocabSize: number;
  readonly #unigram: Unigram;
  readonly #normalize: Normalizer;
  /** Ids of tokens that are found in a text before it is normalized. */
  readonly #special = new Map<string, number>();
  readonly #texts: readonly string[];

  /**
   * @throws {FormatError} If pieces, the map of characters or special tokens are missing or malformed.
   * @throws {ConfigError} If the folder holds another kind of tokenizer.
   */
  constructor({ source, pieces, unknownId, charsmap, added, config = {} }: T5TokenizerFiles) {
    this.#unigram = new Unigram(pieces, unknownId, source);
    this.#normalize = charsmapNormalizer(charsmap, source);
    // `spiece.model` lacks the tokens that stand for masked spans; they lie behind it, the last one first.
    const isWhole = this.#unigram.idOf("<extra_id_0>") !== undefined;
    const extra = Array.from({ length: isWhole ? 0 : EXTRA_IDS }, (_, i) => `<extra_id_${EXTRA_IDS - 1 - i}>`);
    this.#texts = [...pieces.map(([piece]) => piece), ...extra];
    for (const [i, token] of extra.entries()) this.#special.set(token, pieces.length + i);
    for (const [token, id] of added) {
      if (this.#texts[id] !== token) {
        throw new FormatError(
          source,
          `the added token ${quoted(token)} has the id ${id}, which is ${quoted(this.#texts[id])}.`,
        );
      }
      this.#special.set(token, id);
    }
    for (let i = 0; i < EXTRA_IDS; i++) this.#makeSpecial(`<extra_id_${i}>`);
    const idOf = (role: string, fallback: string): number => {
      const setting = config[role] ?? fallback;
      const token = typeof setting === "object" && setting ? (setting as { content?: unknown }).content : setting;
      const id = typeof token === "string" ? this.#makeSpecial(token) : undefined;
      if (id === undefined) throw new FormatError(source, `the ${role} ${quoted(token)} is no piece.`);
      return id;
    };
    this.eosTokenId = idOf("eos_token", "</s>");
    this.padTokenId = idOf("pad_token", "<pad>");
    idOf("unk_token", "<unk>");
    this.vocabSize = this.#texts.length;
    this.maxLength = maxLengthOf(source, config.model_max_length);
  }

  /**
   * Reads `tokenizer.json`, or `spiece.model` where there is none, from a model's folder.
   *
   * @param dir - The model's folder, its address, or a hub id.
   * @param options - `subfolder`: "tokenizer_2" by default (FLUX.1's), "tokenizer_3" for Stable Diffusion 3's, "" for `dir`
   *   itself; and those of the hub.
   * @throws {FormatError} If the folder or a file in it is missing or malformed.
   * @throws {ConfigError} If it holds another kind of tokenizer.
   */
  static async fromPretrained(
    dir: string,
    { subfolder = "tokenizer_2", ...options }: HubOptions & { subfolder?: string } = {},
  ): Promise<T5Tokenizer> {
    const storage = await openStorage(dir, { ...options, parts: [subfolder], weights: false });
    return new T5Tokenizer(await readT5Tokenizer(storage, subfolder));
  }

  /**
   * Encodes one prompt. What does not fit is left out and named in `overflow`.
   *
   * @param maxLength - How many ids are wanted, `</s>` and padding included.
   * @throws {ConfigError} If the prompt has more than 65,536 characters.
   */
  encode(prompt: string, { maxLength = this.maxLength }: { maxLength?: number } = {}): TokenEncoding {
    if (prompt.length > MAX_PROMPT_CHARACTERS) {
      throw new ConfigError(`a prompt may have ${MAX_PROMPT_CHARACTERS} characters at most; got ${quoted(prompt)}.`);
    }
    const found = cutAtTokens(prompt, this.#special.keys()).flatMap(
      (part) => this.#special.get(part) ?? this.#words(part).flatMap((word) => this.#unigram.encode(word)),
    );
    const room = maxLength - 1;
    const ids = [...found.slice(0, room), this.eosTokenId];
    const length = ids.length;
    while (ids.length < maxLength) ids.push(this.padTokenId);
    return { ids, length, overflow: found.length > room ? this.decode(found.slice(room)) : undefined };
  }

  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): string {
    const special = new Set(this.#special.values());
    const pieces = ids.filter((id) => !special.has(id)).map((id) => this.#texts[id] ?? "");
    return pieces.join("").replaceAll(SPACE, " ").trim();
  }

  /** Normalized, cut at white space, each beginning with ▁. A ▁ within one begins another. */
  #words(text: string): string[] {
    const words = this.#normalize(text)
      .split(/\p{White_Space}+/u)
      .filter((word) => word !== "");
    return words.flatMap((word) =>
      (word.startsWith(SPACE) ? word : SPACE + word).split(new RegExp(`(?=${SPACE})`, "u")),
    );
  }

  #makeSpecial(token: string): number | undefined {
    const id = this.#special.get(token) ?? this.#unigram.idOf(token);
    if (id !== undefined) this.#special.set(token, id);
    return id;
  }
}

function maxLengthOf(source: string, length: unknown): number {
  // transformers writes 1e30 for "no limit".
  if (length === undefined || length === null || (typeof length === "number" && length > 1e9)) return DEFAULT_LENGTH;
  if (Number.isInteger(length) && (length as number) >= 2 && (length as number) <= MAX_LENGTH) return length as number;
  throw new FormatError(source, `model_max_length must be an integer from 2 to ${MAX_LENGTH}; got ${quoted(length)}.`);
}
