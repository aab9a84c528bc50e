// Noise levels in the variance-exploding view, sigma = sqrt((1 − ᾱ)/ᾱ), for the samplers that walk along them.

import { ConfigError } from "../errors.js";
import { incompleteBeta } from "../tensor/incomplete-beta.js";
import { roundHalfEven } from "./timestep-spacing.js";

/** The noise level that stands in for an infinite one (zero terminal SNR): that of ᾱ = 2⁻²⁴, as in diffusers. */
const LARGEST_SIGMA = 4096;

/**
 * The noise level of each training timestep, sigma_t = sqrt((1 − ᾱ_t)/ᾱ_t), rounded as float32 rounds it.
 *
 * An ᾱ of 0 (zero terminal SNR) would be infinite; it counts as 2⁻²⁴, as in diffusers.
 *
 * @returns T ascending values.
 */
export function trainingSigmas(alphasCumprod: Float64Array): Float64Array {
  const { fround, sqrt } = Math;
  return alphasCumprod.map((alpha) => (alpha === 0 ? LARGEST_SIGMA : fround(sqrt(fround(fround(1 - alpha) / alpha)))));
}

/** The noise level at a timestep that may be fractional, by linear interpolation between its neighbours. */
export function sigmaAt(sigmas: Float64Array, timestep: number): number {
  const low = Math.min(Math.max(Math.floor(timestep), 0), sigmas.length - 1);
  const high = Math.min(low + 1, sigmas.length - 1);
  return sigmas[low]! + (sigmas[high]! - sigmas[low]!) * (timestep - low);
}

/** How the noise levels of a run are laid out, where they are not those of evenly spaced timesteps. */
export type SigmaSchedule = (min: number, max: number, count: number) => Float64Array;

/**
 * The sigma schedule that a configuration asks for.
 *
 * @throws {ConfigError} If it asks for two.
 */
export function sigmaSchedule(
  where: string,
  config: {
    use_karras_sigmas?: boolean | null;
    use_exponential_sigmas?: boolean | null;
    use_beta_sigmas?: boolean | null;
  },
): SigmaSchedule | undefined {
  const wanted = (Object.keys(SCHEDULES) as (keyof typeof SCHEDULES)[]).filter((name) => config[name]);
  if (wanted.length > 1) {
    throw new ConfigError(
      `${where}: ${wanted.join(" and ")} exclude each other; got ${wanted.length === 2 ? "both" : "all"}. ` +
        "Check them in scheduler_config.json.",
    );
  }
  return wanted[0] && SCHEDULES[wanted[0]];
}

const SCHEDULES = {
  use_karras_sigmas: karrasSigmas,
  use_exponential_sigmas: exponentialSigmas,
  use_beta_sigmas: betaSigmas,
} as const;

/**
 * `count` noise levels from `max` down to `min`, denser towards `min`:
 * sigma_i = (max^(1/ρ) + i/(n − 1) · (min^(1/ρ) − max^(1/ρ)))^ρ, ρ = 7.
 *
 * @see Karras et al. 2022, arXiv:2206.00364, equation 5
 */
export function karrasSigmas(min: number, max: number, count: number): Float64Array {
  const rho = 7;
  const from = max ** (1 / rho);
  const to = min ** (1 / rho);
  const level = (i: number) => (from + (i / (count - 1)) * (to - from)) ** rho;
  return withExactEnds(min, max, count, level);
}

/** `count` noise levels from `max` down to `min`, in equal ratios: sigma_i = max · (min/max)^(i/(n − 1)). */
export function exponentialSigmas(min: number, max: number, count: number): Float64Array {
  const from = Math.log(max);
  const to = Math.log(min);
  return withExactEnds(min, max, count, (i) => Math.exp(from + ((to - from) * i) / (count - 1)));
}

/**
 * `count` noise levels from `max` down to `min`, denser towards both: sigma_i = min + q(1 − i/(n − 1)) · (max − min), q the
 * quantiles of the beta distribution with α = β = 0.6.
 *
 * @see Lee et al. 2024, arXiv:2407.12173
 */
export function betaSigmas(min: number, max: number, count: number): Float64Array {
  return withExactEnds(min, max, count, (i) => min + betaQuantile(1 - i / (count - 1)) * (max - min));
}

/** x with I_x(0.6, 0.6) = p, by bisection to the last digit. */
function betaQuantile(p: number): number {
  let [low, high] = [0, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (incompleteBeta(middle, 0.6, 0.6) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Levels that start and end exactly where they should, whatever the powers and logarithms between round to. */
function withExactEnds(min: number, max: number, count: number, level: (i: number) => number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => (i === 0 ? max : i === count - 1 ? min : level(i)));
}

/**
 * The timestep, possibly fractional, at which the training schedule has a given noise level: the inverse of `sigmaAt`,
 * interpolated between logarithms, and clamped to the schedule.
 *
 * The schedule's logarithms are rounded to float32, as in diffusers: that decides whether the largest noise level lies
 * at T − 1 or just below.
 *
 * @param sigmas - The T ascending training noise levels.
 */
export function timestepOfSigma(sigmas: Float64Array, sigma: number): number {
  if (sigmas.length < 2) return 0;
  const wanted = Math.log(Math.max(sigma, 1e-10));
  const logarithm = (t: number) => Math.fround(Math.log(sigmas[t]!));
  let low = 0;
  let high = sigmas.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (logarithm(middle) <= wanted) low = middle;
    else high = middle;
  }
  const below = logarithm(low);
  const weight = (wanted - below) / (logarithm(high) - below);
  return low + Math.min(Math.max(weight, 0), 1);
}

/** As `timestepOfSigma`, rounded to an integer, halves to the even one. */
export function nearestTimestepOfSigma(sigmas: Float64Array, sigma: number): number {
  return roundHalfEven(timestepOfSigma(sigmas, sigma));
}

/** A noise level in the variance-preserving view: x = alpha·x_0 + s·noise, alpha² + s² = 1, lambda = log(alpha/s). */
export interface NoiseLevel {
  alpha: number;
  s: number;
  /** Infinite where there is no noise. */
  lambda: number;
}

/** The noise level sigma = s/alpha. */
export function noiseLevel(sigma: number): NoiseLevel {
  const alpha = 1 / Math.hypot(sigma, 1);
  return { alpha, s: sigma * alpha, lambda: -Math.log(sigma) };
}
