// How the learning rate changes over a training: a warm-up, then one of three schedules.

import { ConfigError } from "../errors.js";

/** Names of the learning-rate schedules. */
export const LEARNING_RATE_SCHEDULES = ["constant", "linear", "cosine"] as const;

export type LearningRateScheduleName = (typeof LEARNING_RATE_SCHEDULES)[number];

/** What a learning-rate schedule is made from. */
export interface LearningRateOptions {
  /** Default "constant". */
  name?: LearningRateScheduleName;
  /** The rate after the warm-up, 0 or more. */
  learningRate: number;
  /** w, steps over which the rate rises from 0; default 0. */
  warmupSteps?: number;
  /** n, steps of the whole training, warm-up included; required for linear and cosine. */
  totalSteps?: number;
}

/**
 * Learning rates by step, k = 0 being the first, as diffusers' `get_scheduler` defines them.
 *
 * Warm-up, k < w: rate·k/w, so that the very first step has rate 0. Then, with p = (k − w)/max(1, n − w):
 * constant: rate; linear: rate·max(0, 1 − p); cosine: rate·(1 + cos(πp))/2.
 * Beyond the total, linear and cosine stay at 0. "constant" with a warm-up is diffusers' `constant_with_warmup`.
 *
 * @returns A function from a step (an integer, 0 or more) to its learning rate.
 * @throws {ConfigError} If an option is invalid, or the warm-up is longer than the training.
 */
export function learningRateSchedule({
  name = "constant",
  learningRate,
  warmupSteps = 0,
  totalSteps,
}: LearningRateOptions): (step: number) => number {
  if (!LEARNING_RATE_SCHEDULES.includes(name)) {
    throw new ConfigError(
      `learningRateSchedule: name must be one of ${LEARNING_RATE_SCHEDULES.join(", ")}; got ${JSON.stringify(name)}.`,
    );
  }
  if (typeof learningRate !== "number" || !Number.isFinite(learningRate) || learningRate < 0) {
    throw new ConfigError(
      `learningRateSchedule: learningRate must be a finite number, 0 or more; got ${learningRate}.`,
    );
  }
  checkCount("warmupSteps", warmupSteps);
  if (name !== "constant" && totalSteps === undefined) {
    throw new ConfigError(`learningRateSchedule: totalSteps is required for ${name}.`);
  }
  const total = totalSteps ?? Number.POSITIVE_INFINITY;
  if (totalSteps !== undefined) checkCount("totalSteps", totalSteps);
  if (warmupSteps > total) {
    throw new ConfigError(`learningRateSchedule: warmupSteps=${warmupSteps} must not exceed totalSteps=${total}.`);
  }

  return (step) => {
    if (!Number.isSafeInteger(step) || step < 0) {
      throw new ConfigError(`learningRateSchedule: a step must be an integer, 0 or more; got ${step}.`);
    }
    if (step < warmupSteps) return (learningRate * step) / warmupSteps;
    if (name === "constant") return learningRate;
    const progress = Math.min((step - warmupSteps) / Math.max(1, total - warmupSteps), 1);
    if (name === "linear") return learningRate * (1 - progress);
    return learningRate * 0.5 * (1 + Math.cos(Math.PI * progress));
  };
}

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new ConfigError(`learningRateSchedule: ${name} must be an integer, 0 or more; got ${value}.`);
  }
}
