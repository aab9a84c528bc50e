// Blocks that the UNet and the KL autoencoder share, named as in diffusers.

import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { conv2d, groupNorm, linear, type Scope } from "../nn/index.js";

/** Settings of {@link resnetBlock}. */
export interface ResnetOptions {
  groups: number;
  epsilon: number;
  /** `[B, T]`, projected and added per channel between the two convolutions. */
  timeEmbedding?: Value;
  /** The time embedding scales and shifts the second normalization instead: `norm2(x) · (1 + scale) + shift`. */
  scaleShift?: boolean;
}

/**
 * conv2(silu(norm2(conv1(silu(norm1(x))) + time))) + shortcut(x).
 *
 * @param x - `[B, C, H, W]`.
 * @returns `[B, outChannels, H, W]`.
 */
export function resnetBlock(scope: Scope, x: Value, outChannels: number, options: ResnetOptions): Value {
  const { groups, epsilon, timeEmbedding, scaleShift = false } = options;
  let y = ops.silu(groupNorm(scope.in("norm1"), x, groups, epsilon));
  y = conv2d(scope.in("conv1"), y, outChannels, 3, { padding: 1 });
  let time: Value | undefined;
  if (timeEmbedding) {
    const features = scaleShift ? 2 * outChannels : outChannels;
    const projected = linear(scope.in("time_emb_proj"), ops.silu(timeEmbedding), features);
    time = ops.reshape(projected, [projected.shape[0]!, features, 1, 1]);
  }
  if (time && !scaleShift) y = ops.add(y, time);
  y = groupNorm(scope.in("norm2"), y, groups, epsilon);
  if (time && scaleShift) {
    const [scale, shift] = [ops.slice(time, 1, 0, outChannels), ops.slice(time, 1, outChannels, 2 * outChannels)];
    y = ops.add(ops.mul(y, ops.add(scale, 1)), shift);
  }
  y = conv2d(scope.in("conv2"), ops.silu(y), outChannels, 3, { padding: 1 });
  const shortcut = x.shape[1] === outChannels ? x : conv2d(scope.in("conv_shortcut"), x, outChannels, 1);
  return ops.add(y, shortcut);
}

/** Halves height and width with a 3×3 convolution of stride 2. */
export function downsample(
  scope: Scope,
  x: Value,
  channels: number,
  padding: ops.ConvolutionOptions["padding"],
): Value {
  return conv2d(scope.in("conv"), x, channels, 3, { padding, stride: 2 });
}

/**
 * Nearest upsampling and a 3×3 convolution.
 *
 * @param size - Height and width wanted, where an odd size was halved on the way down; doubles otherwise. Nearest
 * resampling of n to 2n − 1 repeats the same pixels as doubling and leaving out the last one.
 */
export function upsample(scope: Scope, x: Value, channels: number, size?: readonly [number, number]): Value {
  let up = ops.upsampleNearest(x);
  if (size) up = ops.slice(ops.slice(up, 2, 0, size[0]), 3, 0, size[1]);
  return conv2d(scope.in("conv"), up, channels, 3, { padding: 1 });
}
