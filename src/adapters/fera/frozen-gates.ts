// Freezes an adapter's gates: what is left of the experts is one plain low-rank product per layer.

import { ConfigError } from "../../errors.js";
import { sizeOf } from "../../tensor/tensor.js";
import type { LoadedAdapter } from "../adapter-format.js";
import { ROUTER, stackState, unstackState } from "./adapter-state.js";
import { routerShapes } from "./router.js";

/**
 * The adapter as it acts while its gates are g_1 … g_E: an adapter with one expert of rank R = E·r and alpha R.
 *
 * Σ_k g_k (alpha/r) B_k A_k = B A with A = A_1 … A_E under each other, `[R, in]`, and B = g_k (alpha/r) B_k beside each
 * other, `[out, R]`; each element of B is rounded to float32 once. Its scale alpha/rank is 1, and the gate of a single
 * expert is 1 whatever the latent.
 *
 * @param gates - E finite numbers; a router's are positive and sum to 1, others are allowed.
 * @throws {ConfigError} If they are another number of gates, or not finite.
 */
export function freezeGates(adapter: LoadedAdapter, gates: readonly number[]): LoadedAdapter {
  const { layout, config, state } = adapter;
  const { layers, rank, numExperts, numBands } = layout;
  if (gates.length !== numExperts || !gates.every(Number.isFinite)) {
    throw new ConfigError(`gates: must be ${numExperts} finite numbers, one per expert; got ${gates.join(", ")}.`);
  }
  const joined = numExperts * rank;
  const stacked = new Map<string, Float32Array>();
  for (const [name, { data }] of stackState(state, layout)) {
    if (name.startsWith(ROUTER)) continue;
    if (name.endsWith(".up")) {
      for (let i = 0; i < data.length; i++) {
        data[i] = data[i]! * gates[Math.floor((i % joined) / rank)]! * (config.alpha / rank);
      }
    }
    stacked.set(name, data);
  }
  const frozen = { layers, rank: joined, numExperts: 1, numBands };
  for (const [name, shape] of routerShapes(numBands, 1)) stacked.set(ROUTER + name, new Float32Array(sizeOf(shape)));
  return {
    config: config.with({ rank: joined, alpha: joined, numExperts: 1 }),
    layout: frozen,
    state: unstackState(stacked, frozen),
    hasConfig: true,
  };
}
