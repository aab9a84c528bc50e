// How noise enters a clean latent over the timesteps: the variance-preserving process of DDPM, or rectified flow.

import { ConfigError } from "../errors.js";
import { DDPMScheduler, type FlowMatchingConfig, type SchedulerConfig } from "../schedulers/index.js";

/** How much of clean latent and noise the input has: z_t = α·x_0 + σ·ε. */
export interface NoiseLevel {
  alpha: number;
  sigma: number;
}

/** Noise levels by timestep. T is the number of training timesteps. */
export interface NoiseProcess {
  /** T. */
  readonly trainTimesteps: number;
  /** Whether every number from 0 to T is a timestep; otherwise the integers from 0 to T − 1 are. */
  readonly isContinuous: boolean;
  /** @throws {ConfigError} If it is no timestep of the process. */
  levelAt(timestep: number): NoiseLevel;
  /** The factor s by which training moves timesteps towards noise unless told otherwise, for a size of latents. */
  shiftFor(latentHeight: number, latentWidth: number): number;
}

/**
 * α² = ᾱ_t, σ² = 1 − ᾱ_t over T discrete timesteps.
 *
 * @param config - As DDPMScheduler takes it; `rescale_betas_zero_snr` ends at α = 0.
 * @see Ho et al. 2020, arXiv:2006.11239; Lin et al. 2023, arXiv:2305.08891
 */
export function variancePreserving(config: SchedulerConfig): NoiseProcess & Pick<DDPMScheduler, "predictionType"> {
  const { alphasCumprod, predictionType } = new DDPMScheduler(config);
  return {
    predictionType,
    trainTimesteps: alphasCumprod.length,
    isContinuous: false,
    shiftFor: () => 1,
    levelAt(timestep) {
      const alphaProd = alphasCumprod[timestep];
      if (alphaProd === undefined) {
        throw new ConfigError(
          `training: timesteps must be integers from 0 to ${alphasCumprod.length - 1}; got ${timestep}.`,
        );
      }
      return { alpha: Math.sqrt(alphaProd), sigma: Math.sqrt(1 - alphaProd) };
    },
  };
}

/**
 * α = 1 − σ with σ = t / T, t any number from 0 to T.
 *
 * @param config - T, and the shift that the model's scheduler has: a number, or one that follows the size of the image.
 * @see Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206
 */
export function rectifiedFlow(config: FlowMatchingConfig): NoiseProcess {
  const { num_train_timesteps: trainTimesteps } = config;
  return {
    trainTimesteps,
    isContinuous: true,
    shiftFor: (height, width) => (config.use_dynamic_shifting ? dynamicShift(height, width, config) : config.shift),
    levelAt(timestep) {
      if (!(timestep >= 0 && timestep <= trainTimesteps)) {
        throw new ConfigError(`training: timesteps must be numbers from 0 to ${trainTimesteps}; got ${timestep}.`);
      }
      const sigma = timestep / trainTimesteps;
      return { alpha: 1 - sigma, sigma };
    },
  };
}

/** diffusers' defaults, which are FLUX's. */
const DYNAMIC_SHIFT = {
  base_shift: 0.5,
  max_shift: 1.15,
  base_image_seq_len: 256,
  max_image_seq_len: 4096,
  time_shift_type: "exponential" as FlowMatchingConfig["time_shift_type"],
};

/** The shift for a size of latents: s = exp(μ), or μ itself where `time_shift_type` is linear; see {@link dynamicShiftMu}. */
export function dynamicShift(latentHeight: number, latentWidth: number, config: DynamicShiftConfig = {}): number {
  const mu = dynamicShiftMu(latentHeight, latentWidth, config);
  return (config.time_shift_type ?? DYNAMIC_SHIFT.time_shift_type) === "exponential" ? Math.exp(mu) : mu;
}

/** What of a scheduler's configuration it follows. */
export type DynamicShiftConfig = Partial<Pick<FlowMatchingConfig, keyof typeof DYNAMIC_SHIFT>>;

/**
 * How far noise levels move towards noise for a size of latents, as FLUX has it.
 *
 * μ = m·N + b, a line through (`base_image_seq_len`, `base_shift`) and (`max_image_seq_len`, `max_shift`), N = h/2 · w/2
 * tokens of 2×2 latents.
 */
export function dynamicShiftMu(latentHeight: number, latentWidth: number, config: DynamicShiftConfig = {}): number {
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null && value !== undefined));
  const { base_shift, max_shift, base_image_seq_len, max_image_seq_len } = {
    ...DYNAMIC_SHIFT,
    ...(given as Partial<typeof DYNAMIC_SHIFT>),
  };
  const tokens = Math.floor(latentHeight / 2) * Math.floor(latentWidth / 2);
  const perToken = (max_shift - base_shift) / (max_image_seq_len - base_image_seq_len);
  return base_shift + perToken * (tokens - base_image_seq_len);
}
