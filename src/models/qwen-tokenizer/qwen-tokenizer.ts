// Qwen's tokenizer: byte-level BPE with its own way of cutting words, on @huggingface/tokenizers; and how a prompt becomes a turn
// of a chat, which FLUX.2-klein and Z-Image encode in place of the prompt.

import { Tokenizer } from "@huggingface/tokenizers";
import { ConfigError, FormatError, quoted } from "../../errors.js";
import type { HubOptions } from "../../storage/hub/hub-options.js";
import { isObject, parsePythonObject } from "../../storage/json.js";
import { joined, openStorage, type Storage } from "../../storage/storage.js";
import { bpeOf, type ClipTokenizerFiles, checkVocabulary } from "../clip-tokenizer/clip-tokenizer-description.js";
import { readClipTokenizer } from "../clip-tokenizer/clip-tokenizer-folder.js";
import { MAX_PROMPT_CHARACTERS, type TokenEncoding } from "../token-encoding.js";

/** The parsed files of a tokenizer folder: the same as CLIP's, and the template of chats. */
export interface QwenTokenizerFiles extends ClipTokenizerFiles {
  /** `chat_template.jinja`, or what `tokenizer_config.json` has of it. */
  chatTemplate?: string | undefined;
}

// English contractions in either case, a run of letters with what stands in front of it, single digits, other signs with the line
// ends behind them, line ends, white space. Spelled out where JavaScript's classes are other than the tokenizers library's.
const WORD_PATTERN = [
  "'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])",
  "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
  "\\p{N}",
  " ?[^\\p{White_Space}\\p{L}\\p{N}]+[\\r\\n]*",
  "\\p{White_Space}*[\\r\\n]+",
  "\\p{White_Space}+(?!\\P{White_Space})",
  "\\p{White_Space}+",
].join("|");

const CLASSES: readonly unknown[] = ["Qwen2Tokenizer", "Qwen2TokenizerFast"];
const END_OF_TEXT = "<|endoftext|>";
const TURN = "<|im_start|>";
const END_OF_TURN = "<|im_end|>";
/** What a template of Qwen3 asks, and those of earlier models, which put other words around a prompt, do not. */
const SWITCH = "enable_thinking";
/** As with CLIP: tables of so many rows are made. */
const MAX_ID = 2 ** 20 - 1;

// The package's declarations import without file endings, which NodeNext does not follow (0.2.0).
interface Bpe {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
}

/** Turns prompts into the token ids that a Qwen3 takes. */
export class QwenTokenizer {
  readonly padTokenId: number;
  /** One more than the largest id: the rows that a token embedding needs. */
  readonly vocabSize: number;
  readonly #bpe: Bpe;
  readonly #source: string;
  /** Why {@link encodeChat} cannot be called. */
  readonly #chatProblem: string | undefined;

  /**
   * @throws {FormatError} If vocabulary, merges or added tokens are missing, malformed or contradict each other.
   * @throws {ConfigError} If the folder holds another kind of tokenizer.
   */
  constructor(files: QwenTokenizerFiles) {
    const { source, config = {} } = files;
    refuseOtherKinds(source, config);
    const bpe = bpeOf(files, "");
    checkVocabulary(source, bpe);
    const added = addedTokens(files, bpe.vocab);
    this.#source = source;
    try {
      this.#bpe = new Tokenizer(describe(bpe, added), {}) as Bpe;
    } catch (cause) {
      throw new FormatError(source, `is no tokenizer that can be read: ${(cause as Error).message}`, { cause });
    }
    const setting = config.pad_token ?? END_OF_TEXT;
    const pad = isObject(setting) ? setting.content : setting;
    const ids = new Map([...Object.entries(bpe.vocab), ...added.map(({ content, id }) => [content, id] as const)]);
    const padTokenId = ids.get(pad as string);
    if (padTokenId === undefined)
      throw new FormatError(source, `the pad_token ${quoted(pad)} is not in the vocabulary.`);
    this.padTokenId = padTokenId;
    let largest = 0;
    for (const id of ids.values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
    this.#chatProblem = chatProblem(files, ids);
  }

  /**
   * Reads a tokenizer from a folder.
   *
   * @param dir - The model's folder, its address, or a hub id.
   * @param options - `subfolder`: "tokenizer" by default, "" for `dir` itself; and those of the hub.
   * @throws {FormatError} If the folder or a file in it is missing or malformed.
   * @throws {ConfigError} If it holds another kind of tokenizer.
   */
  static async fromPretrained(
    dir: string,
    { subfolder = "tokenizer", ...options }: HubOptions & { subfolder?: string } = {},
  ): Promise<QwenTokenizer> {
    const storage = await openStorage(dir, { ...options, parts: [subfolder], weights: false });
    return new QwenTokenizer(await readQwenTokenizer(storage, subfolder));
  }

  /**
   * The ids of a text, then padding. What does not fit is left out and named in `overflow`.
   *
   * @param maxLength - How many ids are wanted.
   * @throws {ConfigError} If the text has more than 65,536 characters.
   */
  encode(text: string, { maxLength }: { maxLength: number }): TokenEncoding {
    if (text.length > MAX_PROMPT_CHARACTERS) {
      throw new ConfigError(`a prompt may have ${MAX_PROMPT_CHARACTERS} characters at most; got ${quoted(text)}.`);
    }
    const found = text === "" ? [] : this.#bpe.encode(text, { add_special_tokens: false }).ids;
    const ids = found.slice(0, maxLength);
    const length = ids.length;
    while (ids.length < maxLength) ids.push(this.padTokenId);
    return { ids, length, overflow: found.length > maxLength ? this.decode(found.slice(maxLength)) : undefined };
  }

  /**
   * The ids of a chat in which the prompt is the user's only turn, and the answer begins.
   *
   * @param options - How the answer begins, and how many ids are wanted.
   * @param options.thinking - False: with an empty thought, so that the model answers at once.
   * @throws {ConfigError} If the tokenizer's template of chats is not Qwen3's.
   */
  encodeChat(prompt: string, { thinking, maxLength }: { thinking: boolean; maxLength: number }): TokenEncoding {
    if (this.#chatProblem) throw new ConfigError(`${this.#source}: ${this.#chatProblem}`);
    const thought = thinking ? "" : "<think>\n\n</think>\n\n";
    const text = `${TURN}user\n${prompt}${END_OF_TURN}\n${TURN}assistant\n${thought}`;
    return this.encode(text, { maxLength });
  }

  /** The text of ids, special tokens left out. */
  decode(ids: readonly number[]): string {
    if (ids.length === 0) return "";
    return this.#bpe.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  }
}

async function readQwenTokenizer(storage: Storage, subfolder: string): Promise<QwenTokenizerFiles> {
  const files = await readClipTokenizer(storage, subfolder);
  const template = await storage.read(joined(subfolder, "chat_template.jinja"));
  if (template) return { ...files, chatTemplate: new TextDecoder().decode(template) };
  const name = joined(subfolder, "chat_template.json");
  const json = await storage.read(name);
  const { chat_template: inJson } = json ? parsePythonObject(json, storage.nameOf(name)) : {};
  const found = files.config?.chat_template ?? inJson;
  return { ...files, chatTemplate: typeof found === "string" ? found : undefined };
}

function refuseOtherKinds(source: string, config: Record<string, unknown>): void {
  const { tokenizer_class: kind = "Qwen2Tokenizer" } = config;
  if (!CLASSES.includes(kind)) {
    throw new ConfigError(`${source}: tokenizer_class must be ${CLASSES.join(" or ")}; got ${quoted(kind)}.`);
  }
  for (const key of ["padding_side", "truncation_side"] as const) {
    const value = config[key] ?? "right";
    if (value !== "right") throw new ConfigError(`${source}: ${key} must be right; got ${quoted(value)}.`);
  }
  if (config.add_prefix_space) throw new ConfigError(`${source}: add_prefix_space must be false.`);
}

function chatProblem({ chatTemplate }: QwenTokenizerFiles, ids: ReadonlyMap<string, number>): string | undefined {
  const missing = [TURN, END_OF_TURN].find((token) => !ids.has(token));
  if (missing) return `the vocabulary has no ${missing}, which every turn of a chat needs.`;
  if (chatTemplate === undefined || (chatTemplate.includes(SWITCH) && chatTemplate.includes(TURN))) return undefined;
  return `its chat template is not that of Qwen3: it does not know ${SWITCH}. Take the tokenizer of the text encoder's own model.`;
}

interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

/** Those of `tokenizer_config.json`, of `tokenizer.json`, or of `added_tokens.json`, whichever lists them first. */
function addedTokens(
  { source, config = {}, tokenizer, addedTokens: listed = {} }: QwenTokenizerFiles,
  vocab: Readonly<Record<string, number>>,
): AddedToken[] {
  const { added_tokens_decoder: decoder } = config;
  const entries: [unknown, unknown][] = isObject(decoder)
    ? Object.entries(decoder).map(([id, token]) => [Number(id), token])
    : Array.isArray(tokenizer?.added_tokens)
      ? tokenizer.added_tokens.map((token: unknown) => [isObject(token) ? token.id : undefined, token])
      : Object.entries(listed).map(([content, id]) => [id, { content, special: true }]);
  return entries.map(([id, token]) => {
    const { content, special = false } = isObject(token) ? token : {};
    if (
      typeof content !== "string" ||
      content === "" ||
      !Number.isInteger(id) ||
      !(Number(id) >= 0 && Number(id) <= MAX_ID)
    ) {
      throw new FormatError(
        source,
        `an added token must have content and an id from 0 to ${MAX_ID}; got ${quoted(token)}.`,
      );
    }
    if (Object.hasOwn(vocab, content) && vocab[content] !== id) {
      throw new FormatError(
        source,
        `the added token ${quoted(content)} has the id ${id}, the vocabulary ${vocab[content]}.`,
      );
    }
    return { id: Number(id), content, special: special === true };
  });
}

function describe({ vocab, merges }: ReturnType<typeof bpeOf>, added: readonly AddedToken[]): Record<string, unknown> {
  return {
    added_tokens: added.map((token) => ({
      ...{ lstrip: false, rstrip: false, normalized: false, single_word: false },
      ...token,
    })),
    normalizer: { type: "NFC" },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: WORD_PATTERN }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      ...{ type: "BPE", unk_token: null, continuing_subword_prefix: "", end_of_word_suffix: "" },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
    },
  };
}
