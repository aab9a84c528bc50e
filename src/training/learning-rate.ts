// How the learning rate changes over a training: a warm-up, then one of the schedules, at once or for the last steps only.

import { ConfigError, quoted } from "../errors.js";

/** Names of the learning-rate schedules. */
export const LEARNING_RATE_SCHEDULES = [
  "constant",
  "linear",
  "cosine",
  "cosine-restarts",
  "polynomial",
  "rex",
] as const;

export type LearningRateScheduleName = (typeof LEARNING_RATE_SCHEDULES)[number];

/** The shape of a schedule. */
export interface LearningRateShape {
  /** Default "constant". */
  name?: LearningRateScheduleName;
  /** Of cosine-restarts: how often it falls, 1 or more. Default 1. */
  restarts?: number;
  /** Of polynomial, above 0. Default 1. */
  power?: number;
}

/** What a learning-rate schedule is made from. */
export interface LearningRateOptions extends LearningRateShape {
  /** The rate after the warm-up, 0 or more. */
  learningRate: number;
  /** w, steps over which the rate rises from 0; default 0. */
  warmupSteps?: number;
  /** Steps at the end over which the rate falls, constant before ("warm-up, stable, decay"). By default all after the warm-up. */
  decaySteps?: number;
  /** n, steps of the whole training, warm-up included; required for all but constant. */
  totalSteps?: number;
}

/**
 * Learning rates by step, k = 0 being the first, as diffusers' `get_scheduler` defines them.
 *
 * Warm-up, k < w: rate·k/w, so that the very first step has rate 0. Then, with s = w, or n − `decaySteps`, and
 * p = (k − s)/max(1, n − s) in 0 … 1: constant: rate; linear: rate·(1 − p); cosine: rate·(1 + cos πp)/2; cosine-restarts:
 * rate·(1 + cos π(cp mod 1))/2 with c restarts; polynomial: rate·(1 − p)^power, down to diffusers' end of 1e-7;
 * rex: rate·(1 − p)/(1 − p/2). Beyond the total they stay where they ended. "constant" with a warm-up is diffusers'
 * `constant_with_warmup`.
 *
 * @returns A function from a step (an integer, 0 or more) to its learning rate.
 * @throws {ConfigError} If an option is invalid, or warm-up and decay are longer than the training.
 * @see Chen et al. 2021, arXiv:2107.04197 (REX)
 */
export function learningRateSchedule({
  name = "constant",
  restarts = 1,
  power = 1,
  learningRate,
  warmupSteps = 0,
  decaySteps,
  totalSteps,
}: LearningRateOptions): (step: number) => number {
  if (!LEARNING_RATE_SCHEDULES.includes(name)) {
    throw new ConfigError(
      `learningRateSchedule: name must be one of ${LEARNING_RATE_SCHEDULES.join(", ")}; got ${quoted(name)}.`,
    );
  }
  if (typeof learningRate !== "number" || !Number.isFinite(learningRate) || learningRate < 0) {
    throw new ConfigError(
      `learningRateSchedule: learningRate must be a finite number, 0 or more; got ${learningRate}.`,
    );
  }
  checkCount("warmupSteps", warmupSteps);
  checkCount("restarts", restarts, 1);
  if (!(power > 0)) throw new ConfigError(`learningRateSchedule: power must be above 0; got ${power}.`);
  if (name !== "constant" && totalSteps === undefined) {
    throw new ConfigError(`learningRateSchedule: totalSteps is required for ${name}.`);
  }
  if (name === "constant" && decaySteps !== undefined) {
    throw new ConfigError("learningRateSchedule: decaySteps needs a schedule that falls; got constant.");
  }
  const total = totalSteps ?? Number.POSITIVE_INFINITY;
  if (totalSteps !== undefined) checkCount("totalSteps", totalSteps);
  if (decaySteps !== undefined) checkCount("decaySteps", decaySteps);
  if (warmupSteps > total) {
    throw new ConfigError(`learningRateSchedule: warmupSteps=${warmupSteps} must not exceed totalSteps=${total}.`);
  }
  if (warmupSteps + (decaySteps ?? 0) > total) {
    throw new ConfigError(
      `learningRateSchedule: warmupSteps=${warmupSteps} and decaySteps=${decaySteps} must not exceed totalSteps=${total}.`,
    );
  }
  const start = decaySteps === undefined ? warmupSteps : total - decaySteps;
  return (step) => {
    if (!Number.isSafeInteger(step) || step < 0) {
      throw new ConfigError(`learningRateSchedule: a step must be an integer, 0 or more; got ${step}.`);
    }
    if (step < warmupSteps) return (learningRate * step) / warmupSteps;
    if (name === "constant" || step < start) return learningRate;
    const progress = Math.min((step - start) / Math.max(1, total - start), 1);
    if (name === "polynomial") return polynomial(learningRate, progress, power);
    return learningRate * fall(name, progress, restarts);
  };
}

/** Where diffusers' polynomial schedule ends. */
const POLYNOMIAL_END = 1e-7;

function polynomial(learningRate: number, progress: number, power: number): number {
  const end = Math.min(POLYNOMIAL_END, learningRate);
  return (learningRate - end) * (1 - progress) ** power + end;
}

function fall(name: Exclude<LearningRateScheduleName, "constant" | "polynomial">, progress: number, restarts: number) {
  if (progress === 1) return 0;
  if (name === "linear") return 1 - progress;
  if (name === "rex") return (1 - progress) / (1 - progress / 2);
  const part = name === "cosine" ? progress : (restarts * progress) % 1;
  return 0.5 * (1 + Math.cos(Math.PI * part));
}

/**
 * Steps, from a number of them or from a share of all.
 *
 * @param value - Below 1 a share, rounded to whole steps; else steps.
 * @throws {ConfigError} If it is neither.
 */
export function stepsOf(name: string, value: number, steps: number): number {
  if (value >= 0 && value < 1) return Math.round(value * steps);
  checkCount(name, value);
  return value;
}

function checkCount(name: string, value: number, least = 0): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`learningRateSchedule: ${name} must be an integer, ${least} or more; got ${value}.`);
  }
}
