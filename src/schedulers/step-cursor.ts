// The position of a run among its timesteps, for samplers whose steps depend on their neighbours.

import { ConfigError } from "../errors.js";

/** Follows a run through its timesteps; a run may start anywhere and then goes on in order. */
export class StepCursor {
  readonly #where: string;
  readonly #timesteps: readonly number[];
  #next: number | undefined;

  /**
   * @param where - The scheduler, for messages.
   * @param timesteps - In the order of the run; float32 values. The same value may occur twice.
   */
  constructor(where: string, timesteps: readonly number[]) {
    this.#where = where;
    this.#timesteps = timesteps;
  }

  /**
   * Makes the timestep at `index` the one that is due.
   *
   * @throws {ConfigError} If there is none.
   */
  begin(index: number): void {
    checkBeginIndex(this.#where, index, this.#timesteps);
    this.#next = index;
  }

  /**
   * The position of `t` without moving: the step that is due if `t` is its timestep, otherwise the first with that value.
   *
   * @throws {ConfigError} If `t` is no timestep of the run.
   */
  find(t: number): number {
    const value = Math.fround(t);
    if (this.#next !== undefined && this.#timesteps[this.#next] === value) return this.#next;
    const index = this.#timesteps.indexOf(value);
    if (index < 0) {
      throw new ConfigError(`${this.#where}: t=${t} is none of the timesteps; pass an element of scheduler.timesteps.`);
    }
    return index;
  }

  /**
   * The position of `t`, which becomes the step just done.
   *
   * @throws {ConfigError} If another timestep is due, or the run is over.
   */
  advance(t: number): number {
    if (this.#next === undefined) this.#next = this.find(t);
    if (this.#next >= this.#timesteps.length) {
      throw new ConfigError(`${this.#where}.step: the run is over; call setTimesteps to start another.`);
    }
    if (this.#timesteps[this.#next] !== Math.fround(t)) {
      throw new ConfigError(
        `${this.#where}.step: the timestep that is due is ${this.#timesteps[this.#next]}; got ${t}. ` +
          "Go through scheduler.timesteps in order, and call setTimesteps to start over.",
      );
    }
    return this.#next++;
  }
}

/**
 * Throws unless a run can start at `index`.
 *
 * @throws {ConfigError} If it is no index of the timesteps.
 */
export function checkBeginIndex(where: string, index: number, timesteps: readonly number[]): void {
  if (!Number.isSafeInteger(index) || index < 0 || index >= timesteps.length) {
    throw new ConfigError(
      `${where}.setBeginIndex: index must be an integer from 0 to ${timesteps.length - 1}; got ${index}.`,
    );
  }
}
