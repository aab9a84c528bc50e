// The forward process: betas and their cumulative products. No sampling.
//
// Everything is rounded to float32 where diffusers rounds it. The schedule's last bits decide which timestep some
// spacings start with, and 1 − ᾱ loses most of its digits near timestep 0.

import { ConfigError } from "../errors.js";

/** The part of a scheduler's configuration that defines its noise schedule. */
export interface NoiseScheduleConfig {
  readonly num_train_timesteps: number;
  readonly beta_start: number;
  readonly beta_end: number;
  readonly beta_schedule: "linear" | "scaled_linear" | "squaredcos_cap_v2";
  readonly trained_betas: readonly number[] | null;
  readonly rescale_betas_zero_snr?: boolean | null;
}

/**
 * The variances β_t added at each training step.
 *
 * linear: evenly spaced from beta_start to beta_end. scaled_linear: the square of an even spacing between the roots.
 * squaredcos_cap_v2: β_t = min(1 − f(t + 1)/f(t), 0.999), f(t) = cos²((t/T + 0.008)/1.008 · π/2).
 * `trained_betas`, where set, replaces all of these.
 *
 * @returns T values, each representable in float32.
 * @throws {ConfigError} If `trained_betas` does not have T values.
 * @see Ho et al. 2020, arXiv:2006.11239; Nichol & Dhariwal 2021, arXiv:2102.09672
 */
export function noiseBetas(where: string, config: NoiseScheduleConfig): Float64Array {
  const steps = config.num_train_timesteps;
  if (config.trained_betas) {
    if (config.trained_betas.length !== steps) {
      throw new ConfigError(
        `${where}: trained_betas must have num_train_timesteps values; got ${config.trained_betas.length} for ${steps}.`,
      );
    }
    return Float64Array.from(config.trained_betas, Math.fround);
  }
  const { beta_start: start, beta_end: end } = config;
  switch (config.beta_schedule) {
    case "linear":
      return float32Linspace(start, end, steps);
    case "scaled_linear":
      return float32Linspace(Math.sqrt(start), Math.sqrt(end), steps).map((root) => Math.fround(root * root));
    case "squaredcos_cap_v2":
      return Float64Array.from({ length: steps }, (_, t) =>
        Math.fround(Math.min(1 - squaredCosine((t + 1) / steps) / squaredCosine(t / steps), 0.999)),
      );
  }
}

/**
 * ᾱ_t = Π_{s≤t} (1 − β_s), rescaled to end at exactly 0 where `rescale_betas_zero_snr` asks for it.
 *
 * The rescaling maps the roots linearly: r_t ← (r_t − r_{T−1}) · r_0 / (r_0 − r_{T−1}), r_t = sqrt(ᾱ_t).
 *
 * @returns T values in [0, 1), descending, each representable in float32.
 * @throws {ConfigError} If the schedule is too short to be rescaled.
 * @see Lin et al. 2023, arXiv:2305.08891, algorithm 1
 */
export function noiseAlphasCumprod(where: string, config: NoiseScheduleConfig): Float64Array {
  const cumulative = products(noiseBetas(where, config));
  if (!config.rescale_betas_zero_snr) return cumulative;
  if (cumulative.length < 2) {
    throw new ConfigError(`${where}: rescale_betas_zero_snr needs at least 2 training timesteps.`);
  }
  const { fround, sqrt } = Math;
  const roots = cumulative.map((alpha) => fround(sqrt(alpha)));
  const [first, last] = [roots[0]!, roots.at(-1)!];
  const stretch = fround(first / fround(first - last));
  const rescaled = roots.map((root) => fround(fround(fround(root - last) * stretch) ** 2));
  // diffusers goes back to betas here, and multiplies them up again
  return products(rescaled.map((alpha, t) => fround(1 - (t === 0 ? alpha : fround(alpha / rescaled[t - 1]!)))));
}

/** Π_{s≤t} (1 − β_s), summed up in float64 and rounded to float32, as torch's cumprod. */
function products(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map((beta) => {
    product *= Math.fround(1 - beta);
    return Math.fround(product);
  });
}

/** As `linspace` to float32: from both ends towards the middle with a step that is itself rounded, as torch does. */
function float32Linspace(start: number, end: number, count: number): Float64Array {
  const { fround } = Math;
  const [first, last] = [fround(start), fround(end)];
  const step = fround(fround(last - first) / fround(Math.max(1, count - 1)));
  return Float64Array.from({ length: count }, (_, i) =>
    fround(i < Math.floor(count / 2) || count === 1 ? first + step * i : last - step * (count - 1 - i)),
  );
}

/**
 * `count` evenly spaced values from `start` to `end`, both included; only `start` when `count` is 1.
 */
export function linspace(start: number, end: number, count: number): Float64Array {
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = start + ((end - start) * i) / Math.max(1, count - 1);
  if (count > 1) values[count - 1] = end;
  return values;
}

function squaredCosine(time: number): number {
  return Math.cos((((time + 0.008) / 1.008) * Math.PI) / 2) ** 2;
}
