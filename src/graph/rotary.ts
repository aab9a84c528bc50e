// Rotary position embedding: pairs of a head's features are turned by angles that grow with the token's position.

import type { Value } from "./graph.js";
import type { RotaryAttributes } from "./operators.js";
import { fail, requireFloat32, sameShape } from "./shapes.js";

/**
 * Turns each pair (a, b) of a head's features: (a cos − b sin, a sin + b cos).
 *
 * B batch, S tokens, heads·D features.
 *
 * @param x - `[B, S, heads·D]`.
 * @param cos - Of the angles by token and pair, `[S, D/2]`; no gradient flows into it.
 * @param sin - Likewise.
 * @returns Same shape as x.
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function rotary(x: Value, cos: Value, sin: Value, attributes: RotaryAttributes): Value {
  requireFloat32("Rotary", { x, cos, sin });
  const { heads, pairs } = attributes;
  if (x.rank !== 3) fail("Rotary", "x must be [B, S, heads·D]", { x });
  const [, tokens, features] = x.shape as [number, number, number];
  if (!Number.isInteger(heads) || heads < 1 || features % (2 * heads) !== 0) {
    fail("Rotary", "heads must divide the features into even parts", { x, heads });
  }
  const angles = [tokens, features / heads / 2];
  if (!sameShape(cos.shape, angles) || !sameShape(sin.shape, angles)) {
    fail("Rotary", `cos and sin must be [${angles.join(", ")}]`, { x, cos, sin });
  }
  return x.graph.node("Rotary", [x, cos, sin], { heads, pairs }, [{ dtype: "float32", shape: x.shape }]).outputs[0]!;
}
