// The noise of a training batch, drawn from a seeded generator: white, with an offset per channel, in several resolutions.
// An option that is off draws nothing.

import { ConfigError } from "../errors.js";
import { type Generator, randn } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";

/** What is added to white noise. */
export interface NoiseOptions {
  /**
   * o ≥ 0: the noise is ε + o·δ, ε standard normal `[B, C, h, w]` and δ `[B, C, 1, 1]`, so that the mean of an image can be
   * learned, too. Default 0. @see Guttenberg 2023, "Diffusion with offset noise"
   */
  noiseOffset?: number;
  /** Draws the strength of the offset for each batch, uniform in 0 … `noiseOffset`. */
  noiseOffsetRandom?: boolean;
  /** Coarser noises that are added at most, each 2 to 4 times coarser than the one before (`addCoarserNoise`). Default 0. */
  multiresNoiseIterations?: number;
  /** d in 0 … 1: the i-th of them counts d^i. Default 0.3. */
  multiresNoiseDiscount?: number;
  /**
   * γ ≥ 0: the image gets ε + γ·ε′ while ε stays the target, so that the model meets its own errors. Default 0.
   * @see Ning et al. 2023, arXiv:2301.11706
   */
  inputPerturbation?: number;
  /** Draws its strength for each batch, uniform in 0 … `inputPerturbation`. */
  inputPerturbationRandom?: boolean;
}

/** kohya's default. */
export const DEFAULT_MULTIRES_DISCOUNT = 0.3;

/** @throws {ConfigError} If an option has a value that it cannot have. */
export function checkNoiseOptions(options: NoiseOptions): void {
  for (const name of ["noiseOffset", "inputPerturbation"] as const) {
    const value = options[name] ?? 0;
    if (value >= 0 && value < Number.POSITIVE_INFINITY) continue;
    throw new ConfigError(`${name} must be a finite number, 0 or more; got ${value}.`);
  }
  const { multiresNoiseIterations: iterations = 0, multiresNoiseDiscount: discount = DEFAULT_MULTIRES_DISCOUNT } =
    options;
  if (!Number.isSafeInteger(iterations) || iterations < 0) {
    throw new ConfigError(`multiresNoiseIterations must be an integer of 0 or more; got ${iterations}.`);
  }
  if (!(discount >= 0 && discount <= 1)) {
    throw new ConfigError(`multiresNoiseDiscount must lie in 0 … 1; got ${discount}.`);
  }
}

/** Noise of a batch. */
export interface TrainingNoise {
  /** ε, which is or makes the target. */
  noise: Tensor<"float32">;
  /** What is added to the image: ε itself without input perturbation. */
  inputNoise: Tensor<"float32">;
}

/**
 * Draws the noise: ε, then what the options add, in the order of {@link NoiseOptions}.
 *
 * @param shape - `[B, C, h, w]`.
 */
export function drawNoise(shape: readonly number[], options: NoiseOptions, generator: Generator): TrainingNoise {
  const { noiseOffset = 0, noiseOffsetRandom, inputPerturbation = 0, inputPerturbationRandom } = options;
  const { multiresNoiseIterations: iterations = 0, multiresNoiseDiscount: discount = DEFAULT_MULTIRES_DISCOUNT } =
    options;
  const noise = randn(shape, { generator });
  if (noiseOffset > 0) addOffsets(noise, noiseOffset * (noiseOffsetRandom ? generator.uniform() : 1), generator);
  if (iterations > 0) addCoarserNoise(noise, drawCoarserNoise(shape, iterations, generator), discount);
  if (inputPerturbation === 0) return { noise, inputNoise: noise };
  const strength = inputPerturbation * (inputPerturbationRandom ? generator.uniform() : 1);
  const more = randn(shape, { generator }).data;
  const perturbed = noise.data.map((value, i) => value + strength * more[i]!);
  return { noise, inputNoise: new Tensor("float32", shape, perturbed) };
}

/** noise `[B, C, …]` += offset · standard normal `[B, C, 1, …]`. */
function addOffsets({ data, shape }: Tensor<"float32">, offset: number, generator: Generator): void {
  const offsets = randn(shape.slice(0, 2), { generator }).data;
  const size = data.length / offsets.length;
  for (let i = 0; i < data.length; i++) data[i] = data[i]! + offset * offsets[Math.floor(i / size)]!;
}

/**
 * Standard normal tensors `[B, C, ⌊h / rⁱ⌋, ⌊w / rⁱ⌋]`, i = 0, 1, …, each with its own r uniform in 2 … 4, until one is a
 * single row or column.
 */
function drawCoarserNoise(shape: readonly number[], iterations: number, generator: Generator): Tensor<"float32">[] {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const drawn: Tensor<"float32">[] = [];
  for (let i = 0; i < iterations; i++) {
    const factor = (2 + 2 * generator.uniform()) ** i;
    const [h, w] = [Math.max(1, Math.floor(height / factor)), Math.max(1, Math.floor(width / factor))];
    drawn.push(randn([batch, channels, h, w], { generator }));
    if (h === 1 || w === 1) break;
  }
  return drawn;
}

/**
 * Multi-resolution (pyramid) noise in place: noise ← (noise + Σ_i dⁱ · up(coarser_i)) / std, so that low frequencies are
 * destroyed, and learned, too.
 *
 * up is bilinear to the noise's size with the centres of pixels aligned, std the standard deviation of all elements (n − 1).
 *
 * @param noise - `[B, C, h, w]`.
 * @param coarser - `[B, C, h_i, w_i]` each.
 * @see Whitaker 2023, "Multi-resolution noise for diffusion model training"; kohya-ss/sd-scripts, `pyramid_noise_like`
 */
export function addCoarserNoise(
  noise: Tensor<"float32">,
  coarser: readonly Tensor<"float32">[],
  discount: number,
): void {
  const { data, shape } = noise;
  const [height, width] = shape.slice(-2) as [number, number];
  coarser.forEach((level, i) => {
    const [h, w] = level.shape.slice(-2) as [number, number];
    const [rows, columns] = [neighboursOf(h, height), neighboursOf(w, width)];
    const weight = discount ** i;
    for (let plane = 0; plane * height * width < data.length; plane++) {
      const from = level.data.subarray(plane * h * w, (plane + 1) * h * w);
      let at = plane * height * width;
      for (const [top, bottom, down] of rows) {
        for (const [left, right, across] of columns) {
          const above = from[top * w + left]! * (1 - across) + from[top * w + right]! * across;
          const below = from[bottom * w + left]! * (1 - across) + from[bottom * w + right]! * across;
          data[at] = data[at]! + weight * (above * (1 - down) + below * down);
          at++;
        }
      }
    }
  });
  const deviation = standardDeviation(data);
  for (let i = 0; i < data.length; i++) data[i] = data[i]! / deviation;
}

/** Of each of `to` places, the two of `from` places that it lies between, and the share of the second. */
function neighboursOf(from: number, to: number): [number, number, number][] {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const first = Math.min(from - 1, Math.floor(place));
    return [first, Math.min(from - 1, first + 1), place - first];
  });
}

function standardDeviation(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}
