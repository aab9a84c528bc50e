// Multi-head attention as one operator, so that each device gets the form it runs best, and its gradient.

import type { Value } from "./graph.js";
import type { AttentionAttributes } from "./operators.js";
import { expand, reshape } from "./shape-operators.js";
import { fail, requireFloat32, sameShape } from "./shapes.js";

/**
 * softmax(scale · q kᵀ) v, head by head.
 *
 * B batch, S query tokens, T key tokens, heads·D features.
 *
 * @param q - `[B, S, heads·D]`.
 * @param k - `[B, T, heads·D]`, or of `keyHeads`.
 * @param v - As k.
 * @param options.scale - Defaults to 1/√D.
 * @param options.causal - Token s sees keys 0 … s only; needs S = T.
 * @param options.keyHeads - Heads of k and v, a divisor of `heads`: each serves as many neighbouring heads of q.
 * @returns `[B, S, heads·D]`.
 * @see Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245, for `keyHeads`
 */
export function attention(
  q: Value,
  k: Value,
  v: Value,
  options: { heads: number; scale?: number; causal?: boolean; keyHeads?: number },
): Value {
  const { keyHeads = options.heads, ...rest } = options;
  if (keyHeads !== options.heads) {
    const [all, allV] = [k, v].map((each) => repeatHeads(each, keyHeads, options.heads)) as [Value, Value];
    return attention(q, all, allV, rest);
  }
  requireFloat32("attention", { q, k, v });
  const { heads, causal = false } = options;
  const fits =
    q.rank === 3 &&
    k.rank === 3 &&
    sameShape(k.shape, v.shape) &&
    q.shape[0] === k.shape[0] &&
    q.shape[2] === k.shape[2];
  if (!fits) fail("attention", "q must be [B, S, F] and k, v [B, T, F]", { q, k, v });
  if (!Number.isInteger(heads) || heads < 1 || q.shape[2]! % heads !== 0) {
    fail("attention", "heads must divide the features", { q, k, v, heads });
  }
  if (causal && q.shape[1] !== k.shape[1]) {
    fail("attention", "causal attention needs as many queries as keys", { q, k });
  }
  const attributes: AttentionAttributes = { heads, scale: options.scale ?? (q.shape[2]! / heads) ** -0.5, causal };
  return q.graph.node("Attention", [q, k, v], attributes, [{ dtype: "float32", shape: q.shape }]).outputs[0]!;
}

/** `[B, T, keyHeads·D]` with every head as often as it takes to have `heads` of them, in place. */
function repeatHeads(x: Value, keyHeads: number, heads: number): Value {
  const [batch, tokens, features] = x.shape as [number, number, number];
  if (x.rank !== 3 || heads % keyHeads !== 0 || features % keyHeads !== 0) {
    fail("attention", "keyHeads must divide heads and the features of k and v", { x, heads, keyHeads });
  }
  const [times, width] = [heads / keyHeads, features / keyHeads];
  const each = reshape(x, [batch, tokens, keyHeads, 1, width]);
  return reshape(expand(each, [batch, tokens, keyHeads, times, width]), [batch, tokens, heads * width]);
}

/** Gradients of {@link attention} with respect to q, k and v, given its output and the output's gradient. */
export function attentionGradient(
  q: Value,
  k: Value,
  v: Value,
  output: Value,
  outputGradient: Value,
  attributes: AttentionAttributes,
): [Value, Value, Value] {
  const types = [q, k, v].map((value) => ({ dtype: "float32" as const, shape: value.shape }));
  return q.graph.node("AttentionGradient", [q, k, v, output, outputGradient], attributes, types).outputs as unknown as [
    Value,
    Value,
    Value,
  ];
}
