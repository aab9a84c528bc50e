// What a denoiser is trained to do: how a clean latent and noise become its input and its target, and the losses between
// target and prediction. Draws nothing: images, noise and timesteps are given.

import { ConfigError } from "../errors.js";
import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { DDPMScheduler, noiseConfigOf, type SchedulerConfig } from "../schedulers/index.js";
import { Tensor } from "../tensor/tensor.js";

/** A pair of factors (a, b) of a·x + b·y. */
type Factors = readonly [number, number];

/** How much of clean latent and noise the input has: z_t = α·x_0 + σ·ε. */
export interface NoiseLevel {
  alpha: number;
  sigma: number;
}

/** What a model predicts at a noise level. */
interface PredictionKind {
  /** Of clean latent x_0 and noise ε, which give the target. */
  target(level: NoiseLevel): Factors;
  /** Of the model's output and its input z_t, which give the predicted noise ε̂. */
  noise(level: NoiseLevel): Factors;
}

/** By diffusers' `prediction_type`. */
const PREDICTION_KINDS: Readonly<Record<string, PredictionKind>> = {
  epsilon: { target: () => [0, 1], noise: () => [1, 0] },
  // v = α·ε − σ·x_0 and α² + σ² = 1, so that ε = α·v + σ·z_t. @see Salimans & Ho 2022, arXiv:2202.00512
  v_prediction: { target: ({ alpha, sigma }) => [-sigma, alpha], noise: ({ alpha, sigma }) => [alpha, sigma] },
};

/** What losses are made from. */
export interface LossInputs {
  /** The model's prediction, `[B, C, H, W]`. */
  output: Value;
  /** What it should be, of the same shape. */
  target: Value;
  /** float32 `[B]`. */
  timesteps: Value;
}

/** Loss terms by name, which add up to the loss. */
export interface LossTerms {
  /** The names, in the order in which they are reported. */
  readonly lossNames: readonly string[];
  /** Scalars with their weights applied. */
  lossTerms(inputs: LossInputs): Readonly<Record<string, Value>>;
}

/** mse = mean (output − target)². */
export const MEAN_SQUARED_ERROR: LossTerms = {
  lossNames: ["mse"],
  lossTerms({ output, target }) {
    const difference = ops.sub(output, target);
    return { mse: ops.reduceMean(ops.mul(difference, difference)) };
  },
};

/** A training objective over T discrete timesteps. B batch. */
export interface Objective extends LossTerms {
  /** T; timesteps are integers from 0 to T − 1. */
  readonly trainTimesteps: number;
  /**
   * Input and target.
   *
   * @param clean - x_0, `[B, …]`.
   * @param noise - ε, of the same shape.
   * @param timesteps - B of them.
   */
  noised(clean: Tensor<"float32">, noise: Tensor<"float32">, timesteps: readonly number[]): NoisedBatch;
  /** Factors of output and input that give the predicted noise: ε̂ = a·output + b·z_t. */
  noiseFactors(timestep: number): Factors;
}

/** Of the shape of the clean latents. */
export interface NoisedBatch {
  /** z_t. */
  latents: Tensor<"float32">;
  target: Tensor<"float32">;
}

/**
 * The objective that a checkpoint was made with, from its scheduler's whole configuration, whatever the scheduler's class:
 * the noise schedule (α² = ᾱ_t, σ² = 1 − ᾱ_t), and `prediction_type`. The loss is the mean squared error.
 *
 * @param config - As in `scheduler_config.json`.
 * @throws {ConfigError} If the configuration asks for what training cannot honour.
 */
export function createObjective(config: SchedulerConfig): Objective {
  const { alphasCumprod, predictionType } = new DDPMScheduler(noiseConfigOf("training", config));
  const kind = PREDICTION_KINDS[predictionType];
  if (!kind) {
    throw new ConfigError(
      `training: prediction_type must be ${Object.keys(PREDICTION_KINDS).join(" or ")}; ` +
        `the model's scheduler says ${predictionType}.`,
    );
  }
  const levelAt = (timestep: number): NoiseLevel => {
    const alphaProd = alphasCumprod[timestep];
    if (alphaProd === undefined) {
      throw new ConfigError(
        `training: timesteps must be integers from 0 to ${alphasCumprod.length - 1}; got ${timestep}.`,
      );
    }
    return { alpha: Math.sqrt(alphaProd), sigma: Math.sqrt(1 - alphaProd) };
  };
  return {
    ...MEAN_SQUARED_ERROR,
    trainTimesteps: alphasCumprod.length,
    noised(clean, noise, timesteps) {
      const levels = timesteps.map(levelAt);
      const inputFactors = levels.map(({ alpha, sigma }): Factors => [alpha, sigma]);
      return {
        latents: mixRows(clean, noise, inputFactors),
        target: mixRows(clean, noise, levels.map(kind.target)),
      };
    },
    noiseFactors: (timestep) => kind.noise(levelAt(timestep)),
  };
}

/** a·x + b·y with one pair of factors per row; a term whose factor is 0 is left out. */
function mixRows(x: Tensor<"float32">, y: Tensor<"float32">, factors: readonly Factors[]): Tensor<"float32"> {
  const stride = x.size / factors.length;
  const result = new Float32Array(x.size);
  factors.forEach(([a, b], row) => {
    for (let i = row * stride; i < (row + 1) * stride; i++) {
      result[i] = a === 0 ? b * y.data[i]! : a * x.data[i]! + b * y.data[i]!;
    }
  });
  return new Tensor("float32", x.shape, result);
}
