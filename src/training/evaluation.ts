// How well a model predicts the noise in images that it was not trained on, with the same noise and timesteps for
// every model that is compared.

import type { Denoiser, Objective } from "../diffusion/index.js";
import { ShapeError } from "../errors.js";
import { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";

/** Settings of {@link noisePredictionError}. */
export interface EvaluationOptions {
  objective: Objective;
  /** Draws the noise; the same seed gives the same noise and timesteps. */
  seed: number;
  /** Timesteps per image, spread evenly over all of them. Default 4. */
  timestepsPerImage?: number;
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
  data: EncodedDataset,
  options: EvaluationOptions,
): Promise<NoisePredictionError> {
  const { objective, seed, timestepsPerImage = 4, batchSize = 8, signal } = options;
  const count = data.latents.shape[0]!;
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
  let sum = 0;
  for (let start = 0; start < jobs.length; start += batchSize) {
    signal?.throwIfAborted();
    // The last batch is filled up by repeating its first job, so that one compiled graph serves all.
    const real = jobs.slice(start, start + batchSize);
    const batch = Array.from({ length: batchSize }, (_, i) => real[i] ?? real[0]!);
    const {
      target: _,
      noise,
      ...inputs
    } = diffusionBatch(
      data,
      batch.map(({ row }) => row),
      { objective, generator, timesteps: batch.map(({ timestep }) => timestep) },
    );
    const output = await model.predict(inputs);
    real.forEach(({ timestep }, i) => {
      sum += noiseError(output, inputs.latents, noise, i, objective.noiseFactors(timestep));
    });
  }
  return { error: sum / jobs.length, count: jobs.length };
}

/** |ε̂ − ε|² / size of one sample of a batch, ε̂ = a·output + b·z_t. */
function noiseError(
  output: Tensor<"float32">,
  latents: Tensor<"float32">,
  noise: Tensor<"float32">,
  index: number,
  [a, b]: readonly [number, number],
): number {
  const size = output.size / output.shape[0]!;
  let sum = 0;
  for (let i = index * size; i < (index + 1) * size; i++) {
    sum += (a * output.data[i]! + b * latents.data[i]! - noise.data[i]!) ** 2;
  }
  return sum / size;
}
