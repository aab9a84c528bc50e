// Tucker's decomposition of a kernel, in which LyCORIS and PEFT ("effective" convolutions) keep LoHa and LoKr.

import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";

/**
 * w[p, q, k, l] = Σ_i Σ_j t[i, j, k, l] a[i, p] b[j, q].
 *
 * @param core - t, `[r, r, k, k]`.
 * @param rows - a, `[r, P]`.
 * @param columns - b, `[r, Q]`.
 * @returns `[P, Q, k, k]`.
 */
export function tuckerKernel(core: Value, rows: Value, columns: Value): Value {
  const [rank, inner, height, width] = core.shape as [number, number, number, number];
  const [outputs, inputs] = [rows.shape[1]!, columns.shape[1]!];
  const pixels = height * width;
  const last = ops.transpose(ops.reshape(core, [rank, inner, pixels]), [0, 2, 1]);
  const byInput = ops.matMul(ops.reshape(last, [rank * pixels, inner]), columns);
  const all = ops.matMul(ops.transpose(rows, [1, 0]), ops.reshape(byInput, [rank, pixels * inputs]));
  const ordered = ops.transpose(ops.reshape(all, [outputs, pixels, inputs]), [0, 2, 1]);
  return ops.reshape(ordered, [outputs, inputs, height, width]);
}
