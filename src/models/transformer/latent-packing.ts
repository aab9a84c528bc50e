// Latents on their grid as rows of tokens, and back.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";

/** How the numbers of a patch lie in its token: channel by channel, or pixel by pixel. */
export type PatchOrder = "channels-first" | "channels-last";

/** `[B, C, H, W]` → `[B, H/p · W/p, C·p²]`, tokens row by row. */
export function packed(latents: Value, patch: number, order: PatchOrder): Value {
  const [batch, channels, height, width] = latents.shape as [number, number, number, number];
  const [rows, columns] = [height / patch, width / patch];
  const split = ops.reshape(latents, [batch, channels, rows, patch, columns, patch]);
  const moved = ops.transpose(split, order === "channels-first" ? [0, 2, 4, 1, 3, 5] : [0, 2, 4, 3, 5, 1]);
  return ops.reshape(moved, [batch, rows * columns, channels * patch * patch]);
}

/** The inverse of {@link packed}. @param size - Height and width of the latents. */
export function unpacked(tokens: Value, patch: number, order: PatchOrder, size: readonly [number, number]): Value {
  const [batch, , features] = tokens.shape as [number, number, number];
  const [height, width] = size;
  const channels = features / patch ** 2;
  const [rows, columns] = [height / patch, width / patch];
  const isFirst = order === "channels-first";
  const each = isFirst ? [channels, patch, patch] : [patch, patch, channels];
  const split = ops.reshape(tokens, [batch, rows, columns, ...each]);
  const moved = ops.transpose(split, isFirst ? [0, 3, 1, 4, 2, 5] : [0, 5, 1, 3, 2, 4]);
  return ops.reshape(moved, [batch, channels, height, width]);
}
