// The frequency-energy indicator: band-pass versions of a latent, and the share of the energy that each holds.

import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { CompiledGraphs } from "../../runtime/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { FeRAConfig, type FeRAOptions, type SigmaRule } from "./fera-config.js";

/** What defines the bands; a {@link FeRAConfig} has all of it. */
export type BandOptions = Pick<FeRAConfig, "numBands" | "bands" | "sigma">;

const ENERGY_EPSILON = 1e-8;

/**
 * Splits a latent into bands, low to high.
 *
 * With G_0 = z and G_{k+1} = blur(z, sigma_0 · 2^k), each level from the latent itself:
 * `reference` gives `[G_K, G_{K−1} − G_K, …, G_1 − G_2]`, `complete` gives `[G_{K−1}, …, G_1 − G_2, z − G_1]`, which
 * sums to z.
 *
 * @param z - float32 `[B, C, H, W]`.
 * @returns K values of that shape.
 */
export function frequencyBands(z: Value, { numBands, bands, sigma }: BandOptions): Value[] {
  if (z.rank !== 4) throw new ShapeError(`frequencyBands: latents must be [B, C, H, W]; got ${z}.`);
  const [, , height, width] = z.shape as [number, number, number, number];
  const base = baseSigma(sigma, height, width);
  const blurs = bands === "reference" ? numBands : numBands - 1;
  const levels = [z];
  for (let k = 0; k < blurs; k++) levels.push(blur(z, base * 2 ** k));
  const result = [levels[blurs]!];
  const finest = bands === "reference" ? 2 : 1;
  for (let k = blurs; k >= finest; k--) result.push(ops.sub(levels[k - 1]!, levels[k]!));
  return result;
}

/** ‖band_k‖² over C, H and W. @returns `[B, K]`. */
export function squaredNorms(bands: readonly Value[]): Value {
  const columns = bands.map((band) => ops.reshape(ops.reduceSum(ops.mul(band, band), [1, 2, 3]), [-1, 1]));
  return ops.concat(columns, 1);
}

/** v_k / (Σ_j v_j + 1e-8) along the last axis of `[B, K]`. */
export function shares(values: Value): Value {
  return ops.div(values, ops.add(ops.reduceSum(values, [-1], true), ENERGY_EPSILON));
}

/** The indicator e_k = ‖band_k‖² / (Σ_j ‖band_j‖² + 1e-8). @returns `[B, K]`. */
export function bandEnergies(bands: readonly Value[]): Value {
  return shares(squaredNorms(bands));
}

/** sigma_0 of a latent of that size. */
export function baseSigma(rule: SigmaRule, height: number, width: number): number {
  return Math.min(height, width) / (rule.rule === "reference" ? 128 : rule.divisor);
}

/**
 * Depthwise Gaussian blur with zero padding, as two matrix products T_H · z · T_W.
 *
 * The 2-D kernel of `int(8 sigma + 1) | 1` taps a side is the outer product of the 1-D one with itself, so that one
 * vertical and one horizontal pass give the same numbers; each is a symmetric banded Toeplitz matrix.
 */
function blur(z: Value, sigma: number): Value {
  const [, , height, width] = z.shape as [number, number, number, number];
  const horizontal = ops.matMul(z, blurMatrix(z.graph, width, sigma));
  return ops.matMul(blurMatrix(z.graph, height, sigma), horizontal);
}

const matrices = new WeakMap<Graph, Map<string, Value>>();

/** `[n, n]` with entry (i, j) the tap at j − i; one per graph, so that equal blurs are equal nodes. */
function blurMatrix(graph: Graph, n: number, sigma: number): Value {
  let known = matrices.get(graph);
  if (!known) {
    known = new Map();
    matrices.set(graph, known);
  }
  const key = `${n}:${sigma}`;
  let matrix = known.get(key);
  if (!matrix) {
    const taps = gaussianTaps(sigma, n);
    const data = new Float32Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) data[i * n + j] = taps[Math.abs(j - i)]!;
    matrix = graph.constant(tensor(data, [n, n]));
    known.set(key, matrix);
  }
  return matrix;
}

/** Taps at distance 0 … n − 1, of a kernel that sums to 1 over both sides; 0 beyond its half width. */
function gaussianTaps(sigma: number, n: number): Float64Array {
  const half = Math.trunc(8 * sigma + 1) >> 1;
  const taps = new Float64Array(n);
  let total = 0;
  for (let i = 0; i <= half; i++) {
    const tap = Math.exp(-(i * i) / (2 * sigma * sigma));
    total += i === 0 ? tap : 2 * tap;
    if (i < n) taps[i] = tap;
  }
  return taps.map((tap) => tap / total);
}

/** Computes bands and energies of latents; compiled once per shape. */
export class FrequencyEnergyIndicator {
  private readonly options: BandOptions;
  private readonly compiled: CompiledGraphs;

  /**
   * @param options - As in {@link FeRAConfig}, with its defaults.
   * @throws {ConfigError} If an option is invalid.
   */
  constructor(options: Pick<FeRAOptions, "numBands" | "bands" | "sigma"> = {}, runtime: RuntimeOptions = {}) {
    this.options = new FeRAConfig(options);
    this.compiled = new CompiledGraphs(runtime);
  }

  /**
   * @param latents - float32 `[B, C, H, W]`.
   * @returns Energies `[B, K]`, in 0 … 1, summing to 1 unless the latent is 0; and the K bands, low to high.
   */
  async compute(latents: Tensor): Promise<{ energies: Tensor<"float32">; bands: Tensor<"float32">[] }> {
    const build = (graph: Graph) => {
      const bands = frequencyBands(graph.input("latents", "float32", latents.shape), this.options);
      graph.output("energies", bandEnergies(bands));
      bands.forEach((band, k) => {
        graph.output(`band${k}`, band);
      });
    };
    const ran = await this.compiled.run(latents.shape.join(","), { build }, { latents });
    const result = ran as Record<string, Tensor<"float32">>;
    const bands = Array.from({ length: this.options.numBands }, (_, k) => result[`band${k}`]!);
    return { energies: result.energies!, bands };
  }

  /** Frees what was compiled. */
  release(): Promise<void> {
    return this.compiled.release();
  }

  /** The same, at the end of use. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
