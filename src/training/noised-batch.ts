// A batch of a diffusion objective: rows of the data, with noise and timesteps from a seeded generator.

import {
  checkMaskOptions,
  checkNoiseOptions,
  checkTimestepOptions,
  drawNoise,
  drawsTimestepsFirst,
  drawTimesteps,
  dropConditioning,
  lossMaskOf,
  type MaskOptions,
  type NoisedBatch,
  type NoiseOptions,
  type Objective,
  type TimestepOptions,
  takeConditioning,
} from "../diffusion/index.js";
import { type Generator, randn } from "../tensor/random.js";
import { takeRows } from "../tensor/rows.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import type { EncodedDataset, EncodedRowBatch } from "./encoded-dataset.js";
import type { DiffusionBatch } from "./trainable.js";

/** How noise and timesteps of a batch are drawn, and what masks do. */
export interface NoisingOptions extends NoiseOptions, TimestepOptions, MaskOptions {}

/** Options of {@link noisedBatch}. */
export interface NoisedBatchOptions extends NoisingOptions {
  objective: Objective;
  generator: Generator;
  /** Which captions are dropped, B of them. */
  dropped?: readonly boolean[];
  /** B of them; drawn by default. */
  timesteps?: readonly number[];
}

/** A batch, and the noise ε in it. */
export type DrawnBatch = DiffusionBatch & NoisedBatch & { noise: Tensor<"float32"> };

/** @throws {ConfigError} If an option has a value that it cannot have. */
export function checkNoisingOptions(options: NoisingOptions & { objective: Objective }): void {
  checkNoiseOptions(options);
  checkTimestepOptions(options, options.objective.trainTimesteps);
  checkMaskOptions(options);
}

/**
 * The batch of encoded rows, with noise (and timesteps, unless given) drawn from the generator.
 *
 * Drawn in this order: stratified timesteps; the jitter of a KL autoencoder's latents; other timesteps; noise. The weights of
 * the loss are the images' times those of the objective at their noise levels.
 */
export function noisedBatch(
  rows: EncodedRowBatch & Pick<EncodedDataset, "empty">,
  options: NoisedBatchOptions,
): DrawnBatch {
  const { objective, generator, dropped = [], timesteps: given } = options;
  const { shape } = rows.latents;
  const [count, , latentHeight, latentWidth] = shape as [number, number, number, number];
  const draw = () => drawTimesteps(options, { objective, count, latentHeight, latentWidth, generator });
  const first = given ?? (drawsTimestepsFirst(options) ? draw() : undefined);
  const clean = rows.latentStd ? jittered(rows.latents, rows.latentStd, generator) : rows.latents;
  const levels = first ?? draw();
  const { noise, inputNoise } = drawNoise(shape, options, generator);
  const noised = objective.noised(clean, noise, levels, inputNoise);
  const lossWeights = product(rows.lossWeights, noised.lossWeights);
  return {
    ...dropConditioning(rows.conditioning, dropped, rows.empty),
    ...noised,
    ...(lossWeights && { lossWeights }),
    ...(rows.lossMask && { lossMask: lossMaskOf(rows.lossMask, options) }),
    timesteps: objective.isContinuous ? tensor([...levels], [count]) : tensor([...levels], [count], "int64"),
    noise,
  };
}

/** As {@link noisedBatch}, of the given rows of a dataset in main memory. */
export function diffusionBatch(data: EncodedDataset, rows: readonly number[], options: NoisedBatchOptions): DrawnBatch {
  const taken = {
    latents: takeRows(data.latents, rows),
    ...(data.latentStd && { latentStd: takeRows(data.latentStd, rows) }),
    conditioning: takeConditioning(data.conditioning, rows),
    empty: data.empty,
  };
  return noisedBatch(taken, options);
}

/** A sample of the autoencoder's distribution: mean + std · standard normal. */
function jittered(mean: Tensor<"float32">, std: Tensor<"float32">, generator: Generator): Tensor<"float32"> {
  const jitter = randn(mean.shape, { generator }).data;
  return new Tensor(
    "float32",
    mean.shape,
    mean.data.map((value, i) => value + std.data[i]! * jitter[i]!),
  );
}

/** Element by element, where both are given. */
function product(a: Tensor<"float32"> | undefined, b: Tensor<"float32"> | undefined): Tensor<"float32"> | undefined {
  if (!a || !b) return a ?? b;
  return new Tensor(
    "float32",
    a.shape,
    a.data.map((value, i) => value * b.data[i]!),
  );
}
