// CLIP's tokenizer: lower-cased byte-level BPE with an end-of-word mark, on @huggingface/tokenizers.
// Works on parsed JSON: clip-tokenizer-folder.ts reads it, clip-tokenizer-description.ts makes sense of it, clip-words.ts has
// the words and symbols.

import { Tokenizer } from "@huggingface/tokenizers";
import { ConfigError, FormatError, quoted } from "../../errors.js";
import type { HubOptions } from "../../storage/hub/hub-options.js";
import { openStorage } from "../../storage/storage.js";
import { Tensor } from "../../tensor/tensor.js";
import { type ClipTokenizerFiles, describeClipTokenizer } from "./clip-tokenizer-description.js";
import { readClipTokenizer } from "./clip-tokenizer-folder.js";
import { CLIP_END_OF_WORD } from "./clip-words.js";

/** One encoded prompt. */
export interface ClipEncoding {
  /** Start token, prompt, end token, padding: exactly `maxLength` ids. */
  ids: number[];
  /** How many of the ids come before the padding. */
  length: number;
  /** The end of the prompt that did not fit, as text; undefined when everything fitted. */
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

const MAX_CHARACTERS = 65_536;

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
  /** Ids of added tokens, by their text. */
  readonly #added = new Map<string, readonly number[]>();

  /**
   * @throws {FormatError} If vocabulary or merges are missing or contradict each other.
   * @throws {ConfigError} If the folder holds another kind of tokenizer.
   */
  constructor(files: ClipTokenizerFiles) {
    const { source } = files;
    const { description, special, maxLength } = describeClipTokenizer(files);
    this.maxLength = maxLength;
    try {
      this.#bpe = new Tokenizer(description, {});
    } catch (cause) {
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
   * Reads a tokenizer from a diffusers folder.
   *
   * @param dir - The model's folder, its address, or a hub id.
   * @param options - `subfolder`: "tokenizer" by default, "tokenizer_2" for SDXL's second one, "" for `dir` itself; and those
   *   of the hub.
   * @throws {FormatError} If the folder or a file in it is missing or malformed.
   * @throws {ConfigError} If it holds another kind of tokenizer.
   */
  static async fromPretrained(
    dir: string,
    { subfolder = "tokenizer", ...options }: HubOptions & { subfolder?: string } = {},
  ): Promise<CLIPTokenizer> {
    const storage = await openStorage(dir, { ...options, parts: [subfolder], weights: false });
    return new CLIPTokenizer(await readClipTokenizer(storage, subfolder));
  }

  /**
   * Encodes one prompt. What does not fit is left out and named in `overflow`.
   *
   * @throws {ConfigError} If the prompt has more than 65,536 characters: tokenizing megabytes takes seconds and a gigabyte.
   */
  encode(prompt: string): ClipEncoding {
    if (prompt.length > MAX_CHARACTERS) {
      throw new ConfigError(`a prompt may have ${MAX_CHARACTERS} characters at most; got ${quoted(prompt)}.`);
    }
    const words = this.#parts(prompt).flatMap((part) => this.#added.get(part) ?? this.#wordsOf(part));
    const room = this.maxLength - 2;
    const ids = [this.bosTokenId, ...words.slice(0, room), this.eosTokenId];
    const length = ids.length;
    while (ids.length < this.maxLength) ids.push(this.padTokenId);
    return { ids, length, overflow: words.length > room ? this.#textOf(words.slice(room), false) : undefined };
  }

  /**
   * Lets a text mean ids of its own from now on, wherever it stands in a prompt, written as it is here: a token of textual
   * inversion, of one or several vectors.
   *
   * @param ids - Behind those of the vocabulary.
   * @throws {ConfigError} If the text is empty, has white space, or is known already.
   */
  addToken(token: string, ids: readonly number[]): void {
    const problem =
      typeof token !== "string" || token === "" || /\s/.test(token)
        ? "must be a text without white space"
        : this.#added.has(token)
          ? "is added already; remove it first"
          : this.#isKnown(token)
            ? "is a token of this vocabulary already; choose another, such as <token>"
            : undefined;
    if (problem) throw new ConfigError(`the token ${quoted(token)} ${problem}.`);
    this.#added.set(token, [...ids]);
  }

  /** Forgets an added token. */
  removeToken(token: string): void {
    this.#added.delete(token);
  }

  #isKnown(token: string): boolean {
    const vocabulary = this.#bpe.get_vocab(true);
    return vocabulary.has(token) || vocabulary.has(`${token}${CLIP_END_OF_WORD}`);
  }

  /** The prompt cut at added tokens, the longest that fits first. */
  #parts(prompt: string): string[] {
    if (this.#added.size === 0) return [prompt];
    const tokens = [...this.#added.keys()].sort((a, b) => b.length - a.length);
    const pattern = tokens.map((token) => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|");
    return prompt.split(new RegExp(`(${pattern})`)).filter((part) => part.trim() !== "");
  }

  #wordsOf(text: string): number[] {
    return this.#bpe.encode(text, { add_special_tokens: false }).ids;
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

  /** The text of ids: lower case, words separated by single spaces, special tokens left out. */
  decode(ids: readonly number[]): string {
    return this.#textOf(ids, true);
  }

  #textOf(ids: readonly number[], skipSpecial: boolean): string {
    if (ids.length === 0) return "";
    const options = { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false };
    const starts = new Map([...this.#added].map(([token, [first]]) => [first, token]));
    const known = new Set([...this.#added.values()].flat());
    const texts: string[] = [];
    for (let from = 0; from < ids.length; ) {
      let to = from;
      while (to < ids.length && !known.has(ids[to]!)) to++;
      if (to > from) texts.push(this.#bpe.decode(ids.slice(from, to), options).trim());
      // Further vectors of a token are part of it.
      if (to < ids.length) texts.push(starts.get(ids[to]) ?? "");
      from = to + 1;
    }
    return texts.filter((text) => text !== "").join(" ");
  }
}
