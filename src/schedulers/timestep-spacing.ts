// Which of the training timesteps a run of few steps visits.

import { ConfigError } from "../errors.js";
import { linspace } from "./noise-schedule.js";

/** The names of diffusers' `timestep_spacing`. */
export type TimestepSpacing = "leading" | "trailing" | "linspace";

/**
 * Throws unless a number of inference steps is an integer from 1 to T.
 *
 * @throws {ConfigError} Otherwise.
 */
export function checkSteps(where: string, steps: number, trainTimesteps: number): void {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > trainTimesteps) {
    throw new ConfigError(
      `${where}.setTimesteps: steps must be an integer from 1 to num_train_timesteps=${trainTimesteps}; got ${steps}.`,
    );
  }
}

/**
 * Timesteps of a run, noisiest first. With n steps of T:
 *
 * leading: i·⌊T/n⌋ + offset; trailing: T − i·T/n − 1; linspace: n values from T − 1 to 0.
 *
 * @param round - Whether linspace is rounded to integers; the other two always are. Halves go to the even neighbour.
 * @returns n values in [0, T).
 * @throws {ConfigError} If `offset` pushes a timestep beyond T − 1.
 * @see Lin et al. 2023, arXiv:2305.08891, table 2
 */
export function spacedTimesteps(
  where: string,
  { spacing, steps, trainTimesteps, offset, round = true }: SpacingOptions,
): number[] {
  const timesteps: number[] = [];
  if (spacing === "leading") {
    const stride = Math.floor(trainTimesteps / steps);
    for (let i = steps - 1; i >= 0; i--) timesteps.push(i * stride + offset);
    checkLargest(where, timesteps[0]!, trainTimesteps, steps, offset);
  } else if (spacing === "trailing") {
    for (let i = 0; i < steps; i++) timesteps.push(roundHalfEven(trainTimesteps - (i * trainTimesteps) / steps) - 1);
  } else {
    for (const value of linspace(0, trainTimesteps - 1, steps)) timesteps.unshift(round ? roundHalfEven(value) : value);
  }
  return timesteps;
}

/** What `spacedTimesteps` needs to know. */
export interface SpacingOptions {
  spacing: TimestepSpacing;
  steps: number;
  /** T. */
  trainTimesteps: number;
  /** `steps_offset`; used by leading only, as in diffusers. */
  offset: number;
  round?: boolean;
}

/** All T training timesteps, noisiest first. */
export function allTimesteps(trainTimesteps: number): number[] {
  return Array.from({ length: trainTimesteps }, (_, i) => trainTimesteps - 1 - i);
}

/**
 * Throws if a timestep lies beyond the noise schedule.
 *
 * @throws {ConfigError} If `largest` is T or more.
 */
export function checkLargest(where: string, largest: number, total: number, steps: number, offset: number): void {
  if (largest >= total) {
    throw new ConfigError(
      `${where}.setTimesteps: with steps=${steps} and steps_offset=${offset} the first timestep would be ${largest}, ` +
        `beyond num_train_timesteps=${total}. Use fewer steps or a smaller steps_offset.`,
    );
  }
}

/** Rounds to the nearest integer, halves to the even one, as NumPy does. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
