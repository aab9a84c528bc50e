// What CLIP's text encoders take: token ids, where prompts end, and vectors of tokens behind the vocabulary.

import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";

/** The `eos_token_id` that configurations carried by mistake until transformers 4.32; see {@link endPositions}. */
const LEGACY_EOS_TOKEN_ID = 2;

/** Tokens that are not of the vocabulary, in a graph. N vectors, C = hidden_size. */
export interface AddedTokenValues {
  /** 1 where a position has a vector, float32 `[B, L, N]`. */
  places: Value;
  /** float32 `[N, C]`. */
  vectors: Value;
}

/** A text encoder's inputs as graph values. B batch, L tokens. */
export interface ClipTextValues {
  /** int64 `[B, L]`. */
  inputIds: Value;
  /** 1 where the prompt ends, float32 `[B, 1, L]`; needed for the pooled state. */
  ends?: Value | undefined;
  added?: AddedTokenValues | undefined;
}

/** What is declared in a graph. */
export interface ClipInputOptions {
  batchSize: number;
  tokens: number;
  /** Stands before the inputs' names. */
  prefix?: string;
  /** Whether the pooled state is wanted. */
  pooled?: boolean;
  /** Vectors behind the vocabulary, where there are some. */
  vectors?: Value | undefined;
}

/** Declares the inputs that {@link clipTextFeeds} feeds. */
export function clipTextInputs(graph: Graph, options: ClipInputOptions): ClipTextValues {
  const { batchSize, tokens, prefix = "", pooled = false, vectors } = options;
  const places = vectors && graph.input(`${prefix}added_places`, "float32", [batchSize, tokens, vectors.shape[0]!]);
  return {
    inputIds: graph.input(`${prefix}input_ids`, "int64", [batchSize, tokens]),
    ends: pooled ? graph.input(`${prefix}ends`, "float32", [batchSize, 1, tokens]) : undefined,
    added: vectors && { vectors, places: places! },
  };
}

/**
 * The tensors for {@link clipTextInputs}, by name. Rows of a batch do not depend on each other.
 *
 * @param inputIds - `[B, L]`, in 0 … vocab_size + `added` − 1.
 * @param added - How many vectors there are behind the vocabulary.
 */
export function clipTextFeeds(
  inputIds: Tensor<"int64">,
  config: { vocab_size: number; eos_token_id: number },
  { added, pooled = false, prefix = "" }: { added: number; pooled?: boolean; prefix?: string },
): Record<string, Tensor> {
  const [batch, length] = inputIds.shape as [number, number];
  const feeds: Record<string, Tensor> = { [`${prefix}input_ids`]: inputIds };
  if (added > 0) {
    const places = new Float32Array(batch * length * added);
    const known = BigInt64Array.from(inputIds.data, (id, at) => {
      if (id < config.vocab_size) return id;
      places[at * added + Number(id) - config.vocab_size] = 1;
      return 0n;
    });
    feeds[`${prefix}input_ids`] = tensor(known, [batch, length], "int64");
    feeds[`${prefix}added_places`] = tensor(places, [batch, length, added]);
  }
  if (pooled) {
    const ends = new Float32Array(batch * length);
    for (const [row, at] of endPositions(inputIds, config).entries()) ends[row * length + at] = 1;
    feeds[`${prefix}ends`] = tensor(ends, [batch, 1, length]);
  }
  return feeds;
}

/** @throws {ShapeError} If ids are not int64 `[B, L]`, or one is not in 0 … `vocabulary` − 1. */
export function checkedIds(inputIds: Tensor, vocabulary: number): Tensor<"int64"> {
  const { shape, dtype } = inputIds;
  if (dtype !== "int64" || shape.length !== 2) {
    throw new ShapeError(`CLIPTextModel.encode: inputIds must be int64 [B, L]; got ${dtype}[${shape.join(",")}].`);
  }
  const ids = inputIds as Tensor<"int64">;
  const wrong = ids.data.find((id) => id < 0n || id >= vocabulary);
  if (wrong === undefined) return ids;
  throw new ShapeError(
    `CLIPTextModel.encode: ids must be in 0 … ${vocabulary - 1} (vocab_size); got ${wrong}. ` +
      "Use the tokenizer that came with this model.",
  );
}

/**
 * Where each prompt ends.
 *
 * The end is the first `eos_token_id`, and position 0 where there is none, as in transformers. With the legacy
 * `eos_token_id` 2 it is the largest id: CLIP's end token is the last of its vocabulary. Ids of added tokens, which are
 * larger still, are not the end: transformers' own rule takes them for it.
 */
function endPositions(
  { data, shape }: Tensor<"int64">,
  { vocab_size: vocabulary, eos_token_id: end }: { vocab_size: number; eos_token_id: number },
): number[] {
  const [batch, length] = shape as [number, number];
  return Array.from({ length: batch }, (_, index) => {
    const ids = Array.from(data.subarray(index * length, (index + 1) * length), Number);
    const known = ids.map((id) => (id < vocabulary ? id : -1));
    const at = end === LEGACY_EOS_TOKEN_ID ? known.indexOf(Math.max(...known)) : ids.indexOf(end);
    return Math.max(at, 0);
  });
}
