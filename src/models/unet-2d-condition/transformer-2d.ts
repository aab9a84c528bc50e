// The spatial transformer of the UNet: self-attention, cross-attention and a gated feed-forward over image tokens.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { conv2d, groupNorm, layerNorm, linear, type Scope } from "../../nn/index.js";

/** Settings of {@link transformer2d}. */
export interface TransformerOptions {
  heads: number;
  layers: number;
  groups: number;
  /** Projects tokens with linear layers instead of 1×1 convolutions (Stable Diffusion 2 and XL). */
  useLinearProjection: boolean;
  /** The first attention of each block looks at the text instead of the image. */
  onlyCrossAttention?: boolean;
}

/**
 * x + project(transformer blocks(project(norm(x)))).
 *
 * @param x - `[B, C, H, W]`.
 * @param context - Text states `[B, T, D]`.
 */
export function transformer2d(scope: Scope, x: Value, context: Value, options: TransformerOptions): Value {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const normalized = groupNorm(scope.in("norm"), x, options.groups, 1e-6);
  const tokens = (image: Value) => ops.transpose(ops.reshape(image, [batch, channels, height * width]), [0, 2, 1]);
  const image = (rows: Value) => ops.reshape(ops.transpose(rows, [0, 2, 1]), x.shape);
  let h = options.useLinearProjection
    ? linear(scope.in("proj_in"), tokens(normalized), channels)
    : tokens(conv2d(scope.in("proj_in"), normalized, channels, 1));
  for (let layer = 0; layer < options.layers; layer++) {
    h = transformerBlock(scope.in("transformer_blocks").in(layer), h, context, options);
  }
  const y = options.useLinearProjection
    ? image(linear(scope.in("proj_out"), h, channels))
    : conv2d(scope.in("proj_out"), image(h), channels, 1);
  return ops.add(y, x);
}

/** Self-attention, cross-attention and feed-forward, each behind a layer norm and added to its input. */
function transformerBlock(scope: Scope, x: Value, context: Value, options: TransformerOptions): Value {
  const { heads, onlyCrossAttention = false } = options;
  const features = x.shape.at(-1)!;
  const normalized = layerNorm(scope.in("norm1"), x);
  let h = ops.add(x, multiHead(scope.in("attn1"), normalized, onlyCrossAttention ? context : normalized, heads));
  h = ops.add(h, multiHead(scope.in("attn2"), layerNorm(scope.in("norm2"), h), context, heads));
  const gated = ops.geglu(linear(scope.in("ff.net.0.proj"), layerNorm(scope.in("norm3"), h), features * 8));
  return ops.add(h, linear(scope.in("ff.net.2"), gated, features));
}

function multiHead(scope: Scope, x: Value, context: Value, heads: number): Value {
  const features = x.shape.at(-1)!;
  const q = linear(scope.in("to_q"), x, features, { bias: false });
  const k = linear(scope.in("to_k"), context, features, { bias: false });
  const v = linear(scope.in("to_v"), context, features, { bias: false });
  return linear(scope.in("to_out.0"), ops.attention(q, k, v, { heads }), features);
}
