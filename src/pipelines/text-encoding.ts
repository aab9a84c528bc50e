// Prompts to text states, with one tokenizer and its encoder.

import { ConfigError, quoted } from "../errors.js";
import type { CLIPTextModel, ClipHiddenStateOptions } from "../models/clip-text/clip-text-model.js";
import type { CLIPTokenizer } from "../models/clip-tokenizer/clip-tokenizer.js";
import { concatRows } from "../tensor/rows.js";
import { Tensor } from "../tensor/tensor.js";
import type { AdapterSelection } from "./adapter-set.js";

/** A text encoder, and the tokenizer whose ids it knows. */
export interface PromptEncoder {
  tokenizer: CLIPTokenizer;
  textEncoder: CLIPTextModel;
}

/** Encoded prompts. B prompts, L tokens, D features of the encoder, P features of its pooled state. */
export interface EncodedPrompts {
  /** `[B, L, D]`. */
  states: Tensor<"float32">;
  /** `[B, P]`. */
  pooled: Tensor<"float32">;
}

/** Which hidden state is taken, and what acts on the encoder. */
export interface PromptOptions extends Omit<ClipHiddenStateOptions, "adapters"> {
  adapters?: { selection: AdapterSelection; encoder: number };
  /** Leaves out what does not fit, where another encoder reads the whole prompt. Default false: it is refused. */
  truncates?: boolean;
}

/**
 * Encodes prompts; each text is encoded once, however often it occurs.
 *
 * @param options - Which hidden state is taken, as for `CLIPTextModel.encodeAll`.
 * @throws {ConfigError} If there is no prompt, one is longer than the tokenizer allows (the part that does not fit is
 *   named), or the encoder has no such layer.
 */
export async function encodePrompts(
  { tokenizer, textEncoder }: PromptEncoder,
  prompts: readonly string[],
  { adapters, truncates = false, ...options }: PromptOptions = {},
): Promise<EncodedPrompts> {
  if (prompts.length === 0) throw new ConfigError("encodePrompt: needs at least one prompt.");
  const tokens = new Map(prompts.map((prompt) => [prompt, tokenize(tokenizer, prompt, truncates)]));
  const keys = prompts.map((prompt, i) => JSON.stringify([prompt, adapters?.selection.choiceOf(i)]));
  // One at a time: a single compiled graph serves every number of prompts.
  const encoded = new Map<string, EncodedPrompts>();
  for (const [i, key] of keys.entries()) {
    if (encoded.has(key)) continue;
    const own = adapters?.selection.ofTextEncoder(adapters.encoder, i);
    const all = await textEncoder.encodeAll(tokens.get(prompts[i]!)!, { ...options, adapters: own });
    encoded.set(key, { states: all.hiddenState, pooled: all.pooled });
  }
  const all = keys.map((key) => encoded.get(key)!);
  return {
    states: concatRows(all.map(({ states }) => states)),
    pooled: concatRows(all.map(({ pooled }) => pooled)),
  };
}

/** Two tensors concatenated along their last dimension; all others are the same. */
export function concatFeatures(a: Tensor<"float32">, b: Tensor<"float32">): Tensor<"float32"> {
  const [left, right] = [a.shape.at(-1)!, b.shape.at(-1)!];
  const data = new Float32Array(a.size + b.size);
  for (let row = 0; row < a.size / left; row++) {
    data.set(a.data.subarray(row * left, (row + 1) * left), row * (left + right));
    data.set(b.data.subarray(row * right, (row + 1) * right), row * (left + right) + left);
  }
  return new Tensor("float32", [...a.shape.slice(0, -1), left + right], data);
}

/** The ids of a prompt. @throws {ConfigError} If it is too long, unless `truncates`. */
export const checkedClipIds = (tokenizer: CLIPTokenizer, prompt: string, truncates = false): number[] =>
  Array.from(tokenize(tokenizer, prompt, truncates).data, Number);

function tokenize(tokenizer: CLIPTokenizer, prompt: string, truncates: boolean): Tensor<"int64"> {
  const { ids, overflows } = tokenizer.encodeBatch([prompt]);
  const [overflow] = overflows;
  if (overflow !== undefined && !truncates) {
    throw new ConfigError(
      `the prompt is longer than the ${tokenizer.maxLength - 2} tokens that the text encoder takes; ` +
        `${quoted(overflow)} does not fit. Shorten ${quoted(prompt)}.`,
    );
  }
  return ids;
}
