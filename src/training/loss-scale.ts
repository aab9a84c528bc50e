// The factor on the loss of a mixed-precision step: small gradients would vanish in float16, and large ones overflow.

import { ConfigError } from "../errors.js";

/** Settings of a {@link LossScale}; torch's GradScaler has the same defaults. */
export interface LossScaleOptions {
  /** A power of 2, so that scaling rounds nothing. Default 65536. */
  initial?: number;
  /** Steps without overflow after which it doubles. Default 2000. */
  growthInterval?: number;
}

/** As it stands between two steps. */
export interface LossScaleState {
  scale: number;
  /** Since it last changed. */
  steps: number;
}

const LARGEST = 2 ** 24;

/** A dynamic loss scale: halved where gradients overflow, doubled again after many steps without. */
export class LossScale {
  #scale: number;
  #steps = 0;
  readonly #growthInterval: number;

  constructor({ initial = 2 ** 16, growthInterval = 2000 }: LossScaleOptions = {}) {
    this.#scale = checkedScale(initial);
    if (!Number.isSafeInteger(growthInterval) || growthInterval < 1) {
      throw new ConfigError(`LossScale: growthInterval must be an integer of 1 or more; got ${growthInterval}.`);
    }
    this.#growthInterval = growthInterval;
  }

  /** The current factor. */
  get value(): number {
    return this.#scale;
  }

  /** Gradients overflowed. @returns False where the scale is 1 already: they are not finite by themselves. */
  backOff(): boolean {
    this.#steps = 0;
    if (this.#scale <= 1) return false;
    this.#scale /= 2;
    return true;
  }

  /** A step went well. */
  succeeded(): void {
    this.#steps++;
    if (this.#steps < this.#growthInterval) return;
    this.#steps = 0;
    this.#scale = Math.min(2 * this.#scale, LARGEST);
  }

  /** For checkpoints. */
  state(): LossScaleState {
    return { scale: this.#scale, steps: this.#steps };
  }

  /** @throws {ConfigError} If the state is none. */
  restore({ scale, steps }: LossScaleState): void {
    this.#scale = checkedScale(scale);
    this.#steps = Number.isSafeInteger(steps) && steps >= 0 ? steps : 0;
  }
}

function checkedScale(scale: number): number {
  if (scale >= 1 && scale <= LARGEST && Number.isInteger(Math.log2(scale))) return scale;
  throw new ConfigError(`LossScale: must be a power of 2 from 1 to ${LARGEST}; got ${scale}.`);
}
