// From what a model predicts to the clean sample and the noise, in the variance-preserving view.

import { ConfigError } from "../errors.js";
import { combine } from "./samples.js";
import type { PredictionType } from "./scheduler.js";

/**
 * The clean sample x_0 that a model output stands for, given x_t = a·x_0 + s·noise, a² + s² = 1.
 *
 * epsilon: (x_t − s·output)/a; v_prediction: a·x_t − s·output; sample: output.
 *
 * @param a - sqrt(ᾱ_t).
 * @param s - sqrt(1 − ᾱ_t).
 * @returns A new array.
 * @throws {ConfigError} If the noise is predicted where nothing but noise is left (a = 0): x_0 is undefined there.
 */
export function predictOriginal(
  where: string,
  type: PredictionType,
  { output, sample, a, s }: Prediction,
): Float32Array<ArrayBuffer> {
  switch (type) {
    case "epsilon":
      if (a === 0) {
        throw new ConfigError(
          `${where}: a model that predicts noise cannot start from zero signal-to-noise ratio. ` +
            "Check prediction_type, rescale_betas_zero_snr and timestep_spacing in scheduler_config.json.",
        );
      }
      return combine(1 / a, sample, -s / a, output);
    case "v_prediction":
      return combine(a, sample, -s, output);
    case "sample":
      return output.slice() as Float32Array<ArrayBuffer>;
  }
}

/**
 * The noise that a model output stands for, in the terms of `predictOriginal`.
 *
 * epsilon: output; v_prediction: a·output + s·x_t; sample: (x_t − a·output)/s.
 *
 * @returns The output itself, or a new array.
 */
export function predictNoise(type: PredictionType, { output, sample, a, s }: Prediction): Float32Array {
  switch (type) {
    case "epsilon":
      return output;
    case "v_prediction":
      return combine(a, output, s, sample);
    case "sample":
      return combine(1 / s, sample, -a / s, output);
  }
}

/** A model's output together with the sample it was made for. */
export interface Prediction {
  output: Float32Array;
  sample: Float32Array;
  /** sqrt(ᾱ_t). */
  a: number;
  /** sqrt(1 − ᾱ_t). */
  s: number;
}
