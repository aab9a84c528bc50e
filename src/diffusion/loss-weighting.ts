// How much a sample's loss counts at its noise level.

import { ConfigError } from "../errors.js";
import type { NoiseLevel } from "./noise-process.js";
import type { TrainedPrediction } from "./prediction-types.js";

/** Kinds of weights, after the papers and the trainers that have them. */
export const LOSS_WEIGHTINGS = ["none", "min-snr", "debiased", "p2", "sigma-sqrt", "cosmap"] as const;

/** One of `LOSS_WEIGHTINGS`. */
export type LossWeighting = (typeof LOSS_WEIGHTINGS)[number];

/** Numbers of the weightings that have some. */
export interface LossWeightingOptions {
  /** γ of `min-snr`. Default 5. */
  minSnrGamma?: number;
  /** γ of `p2`. Default 1. */
  p2Gamma?: number;
  /** k of `p2`. Default 1. */
  p2K?: number;
  /** Models that predict v: multiplies the loss with s = SNR / (SNR + 1), SNR at most 1000, beside any weighting. Default false. */
  scaleVPredLossLikeNoisePred?: boolean;
  /** x ≥ 0, models that predict noise: multiplies the loss with 1 + x / s, beside any weighting. Default 0. */
  vPredLikeLoss?: number;
}

/** Defaults of {@link LossWeightingOptions}. */
export const WEIGHTING_DEFAULTS = { minSnrGamma: 5, p2Gamma: 1, p2K: 1 } as const;

/** Larger ones, near timestep 0, count as this much in kohya's weights. */
const MAX_SNR = 1000;

/** The weight of a loss at a noise level. */
export type LevelWeight = (level: NoiseLevel) => number;

/** SNR = α² / σ², infinite without noise. */
export const signalToNoise = ({ alpha, sigma }: NoiseLevel): number => (alpha / sigma) ** 2;

/**
 * Weights w by noise level, which a sample's loss is multiplied with. SNR = α² / σ².
 *
 * | | epsilon | v_prediction | sample | flow_prediction |
 * |---|---|---|---|---|
 * | min-snr | min(SNR, γ) / SNR | min(SNR, γ) / (SNR + 1) | min(SNR, γ) | min(SNR, γ) · σ² |
 * | debiased | 1 / √min(SNR, 1000) | 1 / (min(SNR, 1000) + 1) | | |
 * | p2 | 1 / (k + SNR)^γ | | | |
 * | sigma-sqrt | | | | 1 / σ² |
 * | cosmap | | | | 2 / (π (1 − 2σ + 2σ²)) |
 *
 * min-snr is one and the same weight, min(SNR, γ), of the error in x_0, for whatever is predicted. σ of sigma-sqrt is 1 / T
 * at least, as in diffusers' table.
 *
 * @returns Undefined for `none`.
 * @throws {ConfigError} Where the table has no entry.
 * @see Hang et al. 2023, arXiv:2303.09556 (min-snr); Yu et al. 2023, arXiv:2310.08442 (debiased; of v as in kohya's
 *   sd-scripts); Choi et al. 2022, arXiv:2204.00227 (p2); Esser et al. 2024, arXiv:2403.03206 (the last two)
 */
export function lossWeighting(
  name: LossWeighting,
  prediction: TrainedPrediction,
  trainTimesteps: number,
  options: LossWeightingOptions = {},
): LevelWeight | undefined {
  if (name === "none") return undefined;
  const { minSnrGamma: gamma, p2Gamma, p2K } = { ...WEIGHTING_DEFAULTS, ...defined(options) };
  const clipped = (level: NoiseLevel) => Math.min(signalToNoise(level), gamma);
  const weights: Readonly<Record<Exclude<LossWeighting, "none">, Partial<Record<TrainedPrediction, LevelWeight>>>> = {
    "min-snr": {
      // min(SNR, γ) / SNR, which is 1 where nothing of the image is left and SNR is 0
      epsilon: (level) => Math.min(1, gamma / signalToNoise(level)),
      v_prediction: (level) => clipped(level) / (signalToNoise(level) + 1),
      sample: clipped,
      flow_prediction: (level) => clipped(level) * level.sigma ** 2,
    },
    debiased: {
      epsilon: (level) => 1 / Math.sqrt(cappedSnr(level)),
      v_prediction: (level) => 1 / (cappedSnr(level) + 1),
    },
    p2: { epsilon: (level) => (p2K + signalToNoise(level)) ** -p2Gamma },
    "sigma-sqrt": { flow_prediction: ({ sigma }) => Math.max(sigma, 1 / trainTimesteps) ** -2 },
    cosmap: { flow_prediction: ({ sigma }) => 2 / (Math.PI * (1 - 2 * sigma + 2 * sigma ** 2)) },
  };
  const weight = weights[name][prediction];
  if (weight) return weight;
  const fitting = Object.keys(weights[name]).join(" or ");
  throw new ConfigError(
    `training: lossWeighting "${name}" is for models that predict ${fitting}; this one predicts ${prediction}. ` +
      "Take another weighting, or none.",
  );
}

/**
 * The factors that make losses of noise and of v alike, which kohya's scripts have beside other weights.
 *
 * @returns Undefined where no option asks for one.
 * @throws {ConfigError} If the model does not predict what an option is for.
 * @see kohya-ss/sd-scripts, `scale_v_prediction_loss_like_noise_prediction`, `add_v_prediction_like_loss`
 */
export function predictionScale(
  prediction: TrainedPrediction,
  { scaleVPredLossLikeNoisePred = false, vPredLikeLoss = 0 }: LossWeightingOptions,
): LevelWeight | undefined {
  const scale: LevelWeight = (level) => cappedSnr(level) / (cappedSnr(level) + 1);
  const refuse = (name: string, fitting: string): never => {
    throw new ConfigError(`training: ${name} is for models that predict ${fitting}; this one predicts ${prediction}.`);
  };
  if (scaleVPredLossLikeNoisePred) {
    if (prediction !== "v_prediction") refuse("scaleVPredLossLikeNoisePred", "v_prediction");
    if (vPredLikeLoss > 0) refuse("vPredLikeLoss", "epsilon");
    return scale;
  }
  if (vPredLikeLoss === 0) return undefined;
  if (prediction !== "epsilon") refuse("vPredLikeLoss", "epsilon");
  return (level) => 1 + vPredLikeLoss / scale(level);
}

const cappedSnr: LevelWeight = (level) => Math.min(signalToNoise(level), MAX_SNR);

/** Without what is undefined. */
function defined<T extends object>(values: T): { [K in keyof T]: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}
