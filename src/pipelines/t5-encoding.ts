// Prompts to text states, with T5.

import { ConfigError, quoted } from "../errors.js";
import type { T5EncoderModel } from "../models/t5-text/t5-encoder-model.js";
import type { T5Tokenizer } from "../models/t5-tokenizer/t5-tokenizer.js";
import { concatRows } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { refuseParts } from "./stable-diffusion/component-checks.js";

/** T5, and the tokenizer whose ids it knows. */
export interface T5Encoder {
  tokenizer: T5Tokenizer;
  textEncoder: T5EncoderModel;
}

/**
 * Encodes prompts, padded to one length; each text is encoded once, however often it occurs.
 *
 * @param maxLength - Tokens, those of padding included.
 * @returns `[B, maxLength, d_model]`.
 * @throws {ConfigError} If a prompt is longer; the part that does not fit is named.
 */
export async function encodeWithT5(
  { tokenizer, textEncoder }: T5Encoder,
  prompts: readonly string[],
  maxLength: number,
): Promise<Tensor<"float32">> {
  const ids = new Map(prompts.map((prompt) => [prompt, tokenize(tokenizer, prompt, maxLength)]));
  const states = new Map<string, Tensor<"float32">>();
  // One at a time: a single compiled graph serves every number of prompts.
  for (const [prompt, each] of ids) states.set(prompt, await textEncoder.encode(each));
  return concatRows(prompts.map((prompt) => states.get(prompt)!));
}

/** The ids of a prompt. @throws {ConfigError} If it is too long. */
export const checkedT5Ids = (tokenizer: T5Tokenizer, prompt: string, maxLength: number): number[] =>
  Array.from(tokenize(tokenizer, prompt, maxLength).data, Number);

function tokenize(tokenizer: T5Tokenizer, prompt: string, maxLength: number): Tensor<"int64"> {
  const { ids, overflow } = tokenizer.encode(prompt, { maxLength });
  if (overflow !== undefined) {
    throw new ConfigError(
      `the prompt is longer than the ${maxLength - 1} tokens that T5 takes here; ${quoted(overflow)} does not fit. ` +
        `Shorten ${quoted(prompt)}, or give a larger maxSequenceLength.`,
    );
  }
  return tensor(ids, [1, maxLength], "int64");
}

/** @throws {ConfigError} Unless it is a number of tokens up to `limit`. */
export function checkSequenceLength(value: number, limit: number): number {
  if (Number.isInteger(value) && value >= 2 && value <= limit) return value;
  throw new ConfigError(`generate: maxSequenceLength must be an integer from 2 to ${limit}; got ${value}.`);
}

/** @throws {ConfigError} Unless T5's states are as wide as what the transformer reads. */
export function checkT5Width(pipeline: string, { config }: T5EncoderModel, features: number): void {
  if (config.d_model === features) return;
  refuseParts(
    pipeline,
    `T5's d_model must be the transformer's joint_attention_dim; got ${config.d_model} and ${features}`,
  );
}

/** @throws {ConfigError} Unless T5 has an embedding for every token. */
export function checkT5Vocabulary(pipeline: string, { vocabSize }: T5Tokenizer, { config }: T5EncoderModel): void {
  if (vocabSize <= config.vocab_size) return;
  refuseParts(pipeline, `T5's tokenizer has ${vocabSize} tokens, its encoder's vocab_size is ${config.vocab_size}`);
}
