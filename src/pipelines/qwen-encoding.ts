// Prompts to hidden states, as turns of a chat with Qwen3.

import { ConfigError, quoted } from "../errors.js";
import type { QwenTokenizer } from "../models/qwen-tokenizer/qwen-tokenizer.js";
import type { Qwen3Model } from "../models/qwen3/qwen3-model.js";
import type { TokenEncoding } from "../models/token-encoding.js";
import { type Tensor, tensor } from "../tensor/tensor.js";

/** Qwen3, and the tokenizer whose ids it knows. */
export interface ChatEncoder {
  tokenizer: QwenTokenizer;
  textEncoder: Qwen3Model;
}

/** How a prompt is encoded. */
export interface ChatOptions {
  /** As `Qwen3Model.hiddenStates` numbers them. */
  layers: readonly number[];
  thinking: boolean;
  /** Tokens, those of the chat and of padding included. */
  maxLength: number;
}

/** One encoded prompt. */
export interface ChatStates {
  /** Of each layer, `[1, maxLength, hidden_size]`. */
  states: readonly Tensor<"float32">[];
  /** Tokens before the padding. */
  length: number;
}

/**
 * Encodes prompts; each text is encoded once, however often it occurs.
 *
 * @throws {ConfigError} If a prompt is too long; the part that does not fit is named.
 */
export async function chatStates(
  { tokenizer, textEncoder }: ChatEncoder,
  prompts: readonly string[],
  { layers, thinking, maxLength }: ChatOptions,
): Promise<ChatStates[]> {
  const tokens = new Map(
    prompts.map((prompt) => [prompt, checkedChatIds(tokenizer, prompt, { thinking, maxLength })] as const),
  );
  const encoded = new Map<string, ChatStates>();
  for (const [prompt, { ids, length }] of tokens) {
    const attentionMask = tensor(
      ids.map((_, i) => (i < length ? 1 : 0)),
      [1, maxLength],
      "int64",
    );
    const states = await textEncoder.hiddenStates(tensor(ids, [1, maxLength], "int64"), { layers, attentionMask });
    encoded.set(prompt, { states, length });
  }
  return prompts.map((prompt) => encoded.get(prompt)!);
}

/** The ids of a chat with the prompt. @throws {ConfigError} If they are too many. */
export function checkedChatIds(
  tokenizer: QwenTokenizer,
  prompt: string,
  options: Pick<ChatOptions, "thinking" | "maxLength">,
): TokenEncoding {
  const encoding = tokenizer.encodeChat(prompt, options);
  if (encoding.overflow === undefined) return encoding;
  throw new ConfigError(
    `the prompt is longer than the ${options.maxLength} tokens that the text encoder takes here, those of the chat around it ` +
      `included; ${quoted(encoding.overflow)} does not fit. Shorten ${quoted(prompt)}, or give a larger maxSequenceLength.`,
  );
}
