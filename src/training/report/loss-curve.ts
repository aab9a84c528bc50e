// Losses by step, out of metrics, smoothed. Pure: pages use it, too.

import type { MetricsLine } from "./metrics-file.js";
import { NO_TERMS } from "./step-report.js";

/** Weight of what came before in the smoothed loss: about the last 50 steps count. */
const SMOOTHING = 0.98;

/** Losses by step. */
export interface LossCurve {
  steps: number[];
  losses: number[];
  /** Exponential mean, without the bias of its start. */
  smoothed: number[];
  /** The terms that the loss is the sum of, by name, smoothed alike. */
  terms: ReadonlyMap<string, number[]>;
}

/**
 * The losses of the steps that are done.
 *
 * @param smoothing - Weight of what came before.
 */
export function lossCurve(lines: readonly MetricsLine[], smoothing = SMOOTHING): LossCurve {
  const terms = new Map<string, number[]>();
  const curve: LossCurve = { steps: [], losses: [], smoothed: [], terms };
  const smooth = smoother(smoothing);
  const smoothTerm = new Map<string, (value: number) => number>();
  for (const { step, loss, ...others } of lines) {
    if (loss === undefined) continue;
    curve.steps.push(step);
    curve.losses.push(loss);
    curve.smoothed.push(smooth(loss));
    for (const [name, value] of Object.entries(others)) {
      if (NO_TERMS.has(name) || typeof value !== "number") continue;
      if (!terms.has(name)) {
        terms.set(name, []);
        smoothTerm.set(name, smoother(smoothing));
      }
      terms.get(name)!.push(smoothTerm.get(name)!(value));
    }
  }
  return curve;
}

/** A running mean m ← s·m + (1 − s)·x, divided by 1 − sᵏ after k values. */
export function smoother(smoothing = SMOOTHING): (value: number) => number {
  let mean = 0;
  let weight = 0;
  return (value) => {
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  };
}
