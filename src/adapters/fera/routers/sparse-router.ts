// Gates of which only the largest stay: a mixture of experts' top k.

import type { Value } from "../../../graph/index.js";
import * as ops from "../../../graph/index.js";
import type { Router } from "./router.js";

/**
 * The k largest gates of each row, divided by their sum; equal ones stay or go together. Gradients reach those that stay.
 *
 * Closed experts are multiplied by 0, not left out: a compiled graph's shapes are fixed, and which experts are closed differs between
 * the samples of a batch. Gathering each sample's own experts would move their weights once per sample, which is more than
 * multiplying with all of them takes at ranks as low as these.
 *
 * @param gates - `[B, E]`.
 * @param count - k, 1 … E.
 * @returns `[B, E]`.
 */
export function largestGates(gates: Value, count: number): Value {
  const [batch, experts] = gates.shape as [number, number];
  const values = ops.stopGradient(gates);
  const isLarger = ops.greater(ops.reshape(values, [batch, 1, experts]), ops.reshape(values, [batch, experts, 1]));
  // How many are larger than each.
  const place = ops.reduceSum(ops.cast(isLarger, "float32"), [2]);
  const isClosed = ops.cast(ops.greater(place, count - 0.5), "float32");
  const kept = ops.mul(gates, ops.add(ops.mul(isClosed, -1), 1));
  return ops.div(kept, ops.reduceSum(kept, [1], true));
}

/** A router of which the largest gates stay. */
export const sparseRouter = (router: Router, count: number): Router => ({
  ...router,
  gates: (inputs, parameters) => largestGates(router.gates(inputs, parameters), count),
  ...(router.blockGates && {
    blockGates: (inputs, parameters, block) => largestGates(router.blockGates!(inputs, parameters, block), count),
  }),
});
