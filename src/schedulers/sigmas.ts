// Noise levels in the variance-exploding view, sigma = sqrt((1 − ᾱ)/ᾱ), for the samplers that walk along them.

import { roundHalfEven } from "./timestep-spacing.js";

/**
 * The noise level of each training timestep, sigma_t = sqrt((1 − ᾱ_t)/ᾱ_t).
 *
 * An ᾱ of 0 (zero terminal SNR) would be infinite; it counts as 2⁻²⁴, as in diffusers.
 *
 * @returns T ascending values.
 */
export function trainingSigmas(alphasCumprod: Float64Array): Float64Array {
  return alphasCumprod.map((alpha) => {
    const positive = Math.max(alpha, 2 ** -24);
    return Math.sqrt((1 - positive) / positive);
  });
}

/** The noise level at a timestep that may be fractional, by linear interpolation between its neighbours. */
export function sigmaAt(sigmas: Float64Array, timestep: number): number {
  const low = Math.min(Math.max(Math.floor(timestep), 0), sigmas.length - 1);
  const high = Math.min(low + 1, sigmas.length - 1);
  return sigmas[low]! + (sigmas[high]! - sigmas[low]!) * (timestep - low);
}

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
  return Float64Array.from({ length: count }, (_, i) => (from + (i / Math.max(1, count - 1)) * (to - from)) ** rho);
}

/**
 * The timestep, possibly fractional, at which the training schedule has a given noise level: the inverse of `sigmaAt`,
 * interpolated between logarithms, and clamped to the schedule.
 *
 * @param sigmas - The T ascending training noise levels.
 */
export function timestepOfSigma(sigmas: Float64Array, sigma: number): number {
  if (sigmas.length < 2) return 0;
  let low = 0;
  let high = sigmas.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sigmas[middle]! <= sigma) low = middle;
    else high = middle;
  }
  const below = Math.log(sigmas[low]!);
  const above = Math.log(sigmas[high]!);
  const weight = (Math.log(Math.max(sigma, 1e-10)) - below) / (above - below);
  return low + Math.min(Math.max(weight, 0), 1);
}

/** As `timestepOfSigma`, rounded to an integer, halves to the even one. */
export function nearestTimestepOfSigma(sigmas: Float64Array, sigma: number): number {
  return roundHalfEven(timestepOfSigma(sigmas, sigma));
}
