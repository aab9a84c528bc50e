// Attention whose scores have something added to them: T5's bias by distance, or what hides keys from queries.

import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";

/** Options of {@link biasedAttention}. */
export interface BiasedAttentionOptions {
  heads: number;
  /** Heads of k and v, a divisor of `heads`: each serves as many neighbouring heads of q. Default `heads`. */
  keyHeads?: number;
  /** Default 1/√D. */
  scale?: number;
  /** Added to the scores, broadcast to `[B, heads, S, T]`. */
  bias: Value;
}

/**
 * softmax(scale · q kᵀ + bias) v, head by head, of standard operators: for models that are run once for a prompt.
 *
 * B batch, S query tokens, T key tokens, D features of a head.
 *
 * @param q - `[B, S, heads·D]`.
 * @param k - `[B, T, keyHeads·D]`.
 * @param v - As k.
 * @returns `[B, S, heads·D]`.
 */
export function biasedAttention(q: Value, k: Value, v: Value, options: BiasedAttentionOptions): Value {
  const { heads, keyHeads = heads, bias } = options;
  const [batch, queries, features] = q.shape as [number, number, number];
  const keys = k.shape[1]!;
  const width = features / heads;
  const group = heads / keyHeads;
  const { scale = width ** -0.5 } = options;
  // Heads of q that share a head of k lie below each other: one product serves all of them.
  const split = ops.reshape(q, [batch, queries, keyHeads, group, width]);
  const rows = ops.reshape(ops.transpose(split, [0, 2, 3, 1, 4]), [batch, keyHeads, group * queries, width]);
  const ofHeads = (x: Value) => ops.transpose(ops.reshape(x, [batch, keys, keyHeads, width]), [0, 2, 1, 3]);
  const products = ops.matMul(scale === 1 ? rows : ops.mul(rows, scale), ofHeads(k), { transposeB: true });
  const scores = ops.add(ops.reshape(products, [batch, heads, queries, keys]), bias);
  const weights = ops.reshape(ops.softmax(scores), [batch, keyHeads, group * queries, keys]);
  const attended = ops.reshape(ops.matMul(weights, ofHeads(v)), [batch, keyHeads, group, queries, width]);
  return ops.reshape(ops.transpose(attended, [0, 3, 1, 2, 4]), [batch, queries, features]);
}
