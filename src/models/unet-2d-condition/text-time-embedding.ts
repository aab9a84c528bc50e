// Text as part of the time embedding (`addition_embed_type: "text"`, as in DeepFloyd IF): the prompt reaches every residual
// block, not only those with attention.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { layerNorm, linear, type Scope } from "../../nn/index.js";

/**
 * norm(W pool(norm(states)) + b): one token, the mean of all plus a learned position, attends to itself and to all.
 *
 * @param states - Text states `[B, T, D]`.
 * @param options.features - F, the width of the time embedding.
 * @returns `[B, F]`.
 * @see diffusers' TextTimeEmbedding
 */
export function textTimeEmbedding(
  scope: Scope,
  states: Value,
  { features, heads }: { features: number; heads: number },
): Value {
  const normalized = layerNorm(scope.in("norm1"), states);
  const [batch, , width] = states.shape as [number, number, number];
  const pool = scope.in("pool");
  const position = pool.parameter("positional_embedding", [1, width], { kind: "normal", std: width ** -0.5 });
  const mean = ops.reduceMean(normalized, [1], true);
  const token = ops.add(mean, ops.reshape(position, [1, 1, width]));
  const all = ops.concat([token, normalized], 1);
  const pooled = ops.attention(
    linear(pool.in("q_proj"), token, width),
    linear(pool.in("k_proj"), all, width),
    linear(pool.in("v_proj"), all, width),
    { heads },
  );
  return layerNorm(scope.in("norm2"), linear(scope.in("proj"), ops.reshape(pooled, [batch, width]), features));
}
