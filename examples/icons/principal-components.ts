// The principal components of square patches of drawings, and an AutoencoderTiny whose encoder gives exactly them. Such an
// encoder needs no training, and what the denoiser then learns is close to an error in pixels.

import { type Generator, randint } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";

/** Components of patches of P×P pixels, D = 3P² numbers each, most variance first. */
export interface PrincipalComponents {
  patch: number;
  /** `[D]`, pixels in 0 … 1, channels last. */
  mean: Float64Array;
  /** `[D][D]`: one unit vector for each component. */
  vectors: Float64Array[];
  /** `[D]`. */
  variances: Float64Array;
}

/** Sweeps of Jacobi's method; it converges quadratically. */
const SWEEPS = 8;

/**
 * Principal components of randomly placed patches, aligned to the patch's own size.
 *
 * @param drawings - Each `[N, S, S, 3]`, bytes.
 * @param side - S.
 */
export function principalComponents(
  drawings: readonly Uint8Array[],
  side: number,
  { patch, samples, generator }: { patch: number; samples: number; generator: Generator },
): PrincipalComponents {
  const size = 3 * patch * patch;
  const mean = new Float64Array(size);
  const products = new Float64Array(size * size);
  const values = new Float64Array(size);
  const places = side / patch;
  let count = 0;
  for (const rgb of drawings) {
    const icons = rgb.length / (3 * side * side);
    const chosen = randint(0, icons * places * places, [samples], { generator }).data;
    for (const place of chosen) {
      readPatch(rgb, side, patch, Number(place), values);
      for (let a = 0; a < size; a++) {
        mean[a]! += values[a]!;
        for (let b = a; b < size; b++) products[a * size + b]! += values[a]! * values[b]!;
      }
      count++;
    }
  }
  const covariance = new Float64Array(size * size);
  for (let a = 0; a < size; a++) mean[a]! /= count;
  for (let a = 0; a < size; a++) {
    for (let b = a; b < size; b++) {
      const value = products[a * size + b]! / count - mean[a]! * mean[b]!;
      covariance[a * size + b] = value;
      covariance[b * size + a] = value;
    }
  }
  const { values: variances, vectors } = symmetricEigen(covariance, size);
  return { patch, mean, vectors, variances };
}

/** Pixels in 0 … 1 of the patch with that number, counted drawing by drawing, row by row. */
function readPatch(rgb: Uint8Array, side: number, patch: number, place: number, into: Float64Array): void {
  const places = side / patch;
  const icon = Math.floor(place / (places * places));
  const top = (Math.floor(place / places) % places) * patch;
  const left = (place % places) * patch;
  const row = 3 * patch;
  for (let y = 0; y < patch; y++) {
    const from = ((icon * side + top + y) * side + left) * 3;
    for (let i = 0; i < row; i++) into[y * row + i] = rgb[from + i]! / 255;
  }
}

/** Eigenvalues and eigenvectors of a symmetric matrix by Jacobi's rotations, largest value first. */
export function symmetricEigen(matrix: Float64Array, size: number): { values: Float64Array; vectors: Float64Array[] } {
  const a = matrix.slice();
  const v = new Float64Array(size * size);
  for (let i = 0; i < size; i++) v[i * size + i] = 1;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        const off = a[p * size + q]!;
        if (Math.abs(off) < 1e-14) continue;
        const theta = (a[q * size + q]! - a[p * size + p]!) / (2 * off);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const cosine = 1 / Math.sqrt(t * t + 1);
        const sine = t * cosine;
        for (const target of [a, v]) rotateColumns(target, size, p, q, cosine, sine);
        rotateRows(a, size, p, q, cosine, sine);
      }
    }
  }
  const order = Array.from({ length: size }, (_, i) => i).sort((i, j) => a[j * size + j]! - a[i * size + i]!);
  return {
    values: Float64Array.from(order, (i) => a[i * size + i]!),
    vectors: order.map((i) => Float64Array.from({ length: size }, (_, k) => v[k * size + i]!)),
  };
}

function rotateColumns(m: Float64Array, size: number, p: number, q: number, cosine: number, sine: number): void {
  for (let k = 0; k < size; k++) {
    const [x, y] = [m[k * size + p]!, m[k * size + q]!];
    m[k * size + p] = cosine * x - sine * y;
    m[k * size + q] = sine * x + cosine * y;
  }
}

function rotateRows(m: Float64Array, size: number, p: number, q: number, cosine: number, sine: number): void {
  for (let k = 0; k < size; k++) {
    const [x, y] = [m[p * size + k]!, m[q * size + k]!];
    m[p * size + k] = cosine * x - sine * y;
    m[q * size + k] = sine * x + cosine * y;
  }
}

/** How many times a patch of that size is halved. */
const halvings = (patch: number): number => Math.log2(patch);

/**
 * Weights of AutoencoderTiny's encoder without residual blocks, whose latents are the first components, each times its gain.
 *
 * A convolution of stride 2 whose kernel has one 1 per channel moves 2×2 pixels into channels; the last of them also
 * multiplies by the components. The encoder scales pixels to 0 … 1 itself.
 *
 * @param width - Channels inside the encoder; at least 3·(patch/2)² and as many as there are components.
 * @param gains - One for each component wanted.
 * @returns Tensors by their names in diffusers' AutoencoderTiny.
 */
export function linearEncoder(
  { patch, mean, vectors }: PrincipalComponents,
  width: number,
  gains: readonly number[],
): Map<string, Tensor<"float32">> {
  const levels = halvings(patch);
  const weights = new Map<string, Tensor<"float32">>();
  const kernel = (outputs: number, inputs: number) =>
    tensor(new Float32Array(outputs * inputs * 9), [outputs, inputs, 3, 3]);
  const first = kernel(width, 3);
  for (let c = 0; c < 3; c++) first.data[(c * 3 + c) * 9 + 4] = 1;
  weights.set("encoder.layers.0.weight", first);
  weights.set("encoder.layers.0.bias", tensor(new Float32Array(width), [width]));
  for (let level = 1; level < levels; level++) {
    const inputs = 3 * 4 ** (level - 1);
    const moved = kernel(width, width);
    for (let y = 0; y < 2; y++) {
      for (let x = 0; x < 2; x++) {
        for (let c = 0; c < inputs; c++) {
          const output = (2 * y + x) * inputs + c;
          moved.data[(output * width + c) * 9 + 3 * (1 + y) + 1 + x] = 1;
        }
      }
    }
    weights.set(`encoder.layers.${level}.weight`, moved);
  }
  const projected = kernel(width, width);
  gains.forEach((_, k) => {
    for (let y = 0; y < patch; y++) {
      for (let x = 0; x < patch; x++) {
        for (let c = 0; c < 3; c++) {
          const { channel, row, column } = placeOf(y, x, c, levels);
          projected.data[(k * width + channel) * 9 + 3 * (1 + row) + 1 + column] =
            vectors[k]![(y * patch + x) * 3 + c]!;
        }
      }
    }
  });
  weights.set(`encoder.layers.${levels}.weight`, projected);
  const last = kernel(gains.length, width);
  const offset = new Float32Array(gains.length);
  gains.forEach((gain, k) => {
    last.data[(k * width + k) * 9 + 4] = gain;
    offset[k] = -gain * vectors[k]!.reduce((sum, value, i) => sum + value * mean[i]!, 0);
  });
  weights.set(`encoder.layers.${levels + 1}.weight`, last);
  weights.set(`encoder.layers.${levels + 1}.bias`, tensor(offset, [gains.length]));
  return weights;
}

/**
 * Where a patch's pixel lies before the last halving: after levels − 1 of them, its channel, and which of the last 2×2 it is.
 */
function placeOf(y: number, x: number, c: number, levels: number): { channel: number; row: number; column: number } {
  let channel = c;
  let inputs = 3;
  for (let level = 0; level < levels - 1; level++) {
    channel += (2 * ((y >> level) & 1) + ((x >> level) & 1)) * inputs;
    inputs *= 4;
  }
  return { channel, row: (y >> (levels - 1)) & 1, column: (x >> (levels - 1)) & 1 };
}
