// Freezes an adapter's gates: what is left of the experts is one plain low-rank product per layer.

import { ConfigError } from "../../errors.js";
import { sizeOf } from "../../tensor/tensor.js";
import type { LoadedAdapter } from "../adapter-format.js";
import type { FeRAConfig } from "./fera-config.js";
import { layoutOf, ROUTER, stackState, unstackState } from "./fera-state.js";

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
export function freezeGates(adapter: LoadedAdapter<FeRAConfig>, gates: readonly number[]): LoadedAdapter<FeRAConfig> {
  const { layers, config, state } = adapter;
  const { rank, numExperts } = config;
  const layout = layoutOf(config, layers);
  if (gates.length !== numExperts || !gates.every(Number.isFinite)) {
    throw new ConfigError(`gates: must be ${numExperts} finite numbers, one per expert; got ${gates.join(", ")}.`);
  }
  const stackedRank = numExperts * rank;
  const { sharedDown } = config;
  const stacked = new Map<string, Float32Array>();
  for (const [name, { data }] of stackState(state, layout)) {
    if (name.startsWith(ROUTER)) continue;
    if (name.endsWith(".up")) {
      for (let i = 0; i < data.length; i++) {
        data[i] = data[i]! * gates[Math.floor((i % stackedRank) / rank)]! * (config.alpha / rank);
      }
    }
    stacked.set(name, sharedDown && name.endsWith(".down") ? repeated(data, numExperts) : data);
  }
  const frozen = config.with({
    rank: stackedRank,
    alpha: stackedRank,
    numExperts: 1,
    router: "energies",
    sharedDown: false,
    topExperts: 0,
  });
  const frozenLayout = layoutOf(frozen, layers);
  for (const [name, shape] of frozenLayout.routerShapes) stacked.set(ROUTER + name, new Float32Array(sizeOf(shape)));
  return { config: frozen, layers, state: unstackState(stacked, frozenLayout), hasConfig: true };
}

function repeated(data: Float32Array, times: number): Float32Array {
  const all = new Float32Array(times * data.length);
  for (let i = 0; i < times; i++) all.set(data, i * data.length);
  return all;
}
