// What a denoiser can predict: how target and noise follow from clean latent, noise, input and output.

import type { NoiseLevel } from "./noise-process.js";

/** A pair of factors (a, b) of a·x + b·y. */
export type Factors = readonly [number, number];

/** What a model predicts at a noise level z_t = α·x_0 + σ·ε. */
export interface PredictionKind {
  /** Of clean latent x_0 and noise ε, which give the target. */
  target(level: NoiseLevel): Factors;
  /** Of the model's output and its input z_t, which give the predicted noise ε̂. */
  noise(level: NoiseLevel): Factors;
}

/** diffusers' names for what a model predicts. */
export const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample", "flow_prediction"] as const;

/** One of `PREDICTION_TYPES`. */
export type TrainedPrediction = (typeof PREDICTION_TYPES)[number];

/** By diffusers' `prediction_type`. */
export const PREDICTION_KINDS: Readonly<Record<TrainedPrediction, PredictionKind>> = {
  epsilon: { target: () => [0, 1], noise: () => [1, 0] },
  // v = α·ε − σ·x_0 and α² + σ² = 1, so that ε = α·v + σ·z_t. @see Salimans & Ho 2022, arXiv:2202.00512
  v_prediction: { target: ({ alpha, sigma }) => [-sigma, alpha], noise: ({ alpha, sigma }) => [alpha, sigma] },
  // z_t = α·x_0 + σ·ε, solved for ε
  sample: { target: () => [1, 0], noise: ({ alpha, sigma }) => [-alpha / sigma, 1 / sigma] },
  // u = ε − x_0 and α = 1 − σ, so that ε = z_t + (1 − σ)·u
  flow_prediction: { target: () => [-1, 1], noise: ({ alpha }) => [alpha, 1] },
};
