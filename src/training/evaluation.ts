// How well a model predicts the noise in images that it was not trained on, with the same noise and timesteps for
// every model that is compared.

import { concatConditioning, conditioningOf, type Denoiser, type Objective } from "../diffusion/index.js";
import { ShapeError } from "../errors.js";
import { Generator } from "../tensor/random.js";
import { concatRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import { type EncodedDataset, type EncodedRows, rowsInMemory } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";

/** Settings of {@link noisePredictionError}. */
export interface EvaluationOptions {
  objective: Objective;
  /** Draws the noise; the same seed gives the same noise and timesteps. */
  seed: number;
  /** Timesteps per image, spread evenly over all of them. Default 4. */
  timestepsPerImage?: number;
  /** Predictions at once. Default 8. */
  batchSize?: number;
  signal?: AbortSignal;
}

/** Errors over a dataset. */
export interface NoisePredictionError {
  /** Mean over images and timesteps of |ε̂ − ε|² / size. */
  error: number;
  /** Predictions made. */
  count: number;
}

/** One prediction. */
export interface NoisePrediction {
  timestep: number;
  /** |ε̂ − ε|² / size. */
  error: number;
  /** ε̂ − ε, `[C, H, W]`. */
  residual: Float32Array;
  height: number;
  width: number;
}

/**
 * Mean squared error of the predicted noise.
 *
 * What else a model predicts is converted to noise, so that errors compare between kinds of model.
 *
 * @param model - A frozen denoiser, or one with adapters.
 * @throws {ShapeError} If the dataset is empty.
 */
export async function noisePredictionError(
  model: Pick<Denoiser, "predict">,
  data: EncodedDataset | EncodedRows,
  options: EvaluationOptions,
): Promise<NoisePredictionError> {
  let sum = 0;
  let count = 0;
  for await (const { error } of noisePredictions(model, data, options)) {
    sum += error;
    count++;
  }
  return { error: sum / count, count };
}

/** Predictions that {@link noisePredictions} makes. */
export const predictionCount = (data: EncodedDataset | EncodedRows, timestepsPerImage = TIMESTEPS_PER_IMAGE): number =>
  ("read" in data ? data.size : data.latents.shape[0]!) * timestepsPerImage;

const TIMESTEPS_PER_IMAGE = 4;

/**
 * Predictions of noise over a dataset, one by one.
 *
 * Each has noise and timestep of its own, in a fixed order: the batch size changes neither.
 *
 * @throws {ShapeError} If the dataset is empty.
 */
export async function* noisePredictions(
  model: Pick<Denoiser, "predict">,
  data: EncodedDataset | EncodedRows,
  options: EvaluationOptions,
): AsyncGenerator<NoisePrediction> {
  const { objective, seed, timestepsPerImage = TIMESTEPS_PER_IMAGE, batchSize = 8, signal } = options;
  const rows = "read" in data ? data : rowsInMemory(data);
  const count = rows.size;
  if (count === 0) throw new ShapeError("noisePredictionError: the dataset is empty.");
  const generator = new Generator(seed);
  const total = objective.trainTimesteps;
  const jobs: { row: number; timestep: number }[] = [];
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < timestepsPerImage; i++) {
      // Each image gets its own offset, so that the whole range is covered however few timesteps an image has.
      const place = (i + (row + 0.5) / count) / timestepsPerImage;
      jobs.push({ row, timestep: Math.min(total - 1, Math.floor(place * total)) });
    }
  }
  for (let start = 0; start < jobs.length; ) {
    signal?.throwIfAborted();
    const real = sameSized(jobs.slice(start, start + batchSize), rows);
    start += real.length;
    const single: ReturnType<typeof diffusionBatch>[] = [];
    for (const { row, timestep } of real) {
      const read = { ...(await rows.read([{ index: row }])), empty: rows.empty };
      single.push(diffusionBatch(read, [0], { objective, generator, timesteps: [timestep] }));
    }
    // A short batch is filled up by repeating its first job, so that one compiled graph serves all of a size.
    const batch = Array.from({ length: batchSize }, (_, i) => single[i] ?? single[0]!);
    const output = await model.predict({
      ...concatConditioning(batch.map(conditioningOf)),
      latents: concatRows(batch.map(({ latents }) => latents)),
      timesteps: concatRows(batch.map(({ timesteps }) => timesteps)),
    });
    for (const [i, { timestep }] of real.entries()) {
      const { latents, noise } = single[i]!;
      const [, , height, width] = latents.shape as [number, number, number, number];
      const residual = noiseResidual(output, latents, noise, i, objective.noiseFactors(timestep));
      yield { timestep, error: meanSquare(residual), residual, height, width };
    }
  }
}

/** The first jobs, as far as their latents have one size. */
function sameSized<T extends { row: number }>(jobs: readonly T[], rows: EncodedRows): readonly T[] {
  const sizeOf = ({ row }: T) => {
    const { latentHeight, latentWidth } = rows.latentSize(row);
    return `${latentHeight}×${latentWidth}`;
  };
  const end = jobs.findIndex((job) => sizeOf(job) !== sizeOf(jobs[0]!));
  return end === -1 ? jobs : jobs.slice(0, end);
}

/** ε̂ − ε of one sample, ε̂ = a·output + b·z_t. */
function noiseResidual(
  output: Tensor<"float32">,
  latents: Tensor<"float32">,
  noise: Tensor<"float32">,
  index: number,
  [a, b]: readonly [number, number],
): Float32Array {
  const start = index * latents.size;
  return Float32Array.from(noise.data, (value, i) => a * output.data[start + i]! + b * latents.data[i]! - value);
}

function meanSquare(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return sum / values.length;
}
