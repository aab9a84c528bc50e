// How well a model predicts the noise in images that it was not trained on, with the same noise and timesteps for
// every model that is compared.

import type { FeRAModel } from "../adapters/index.js";
import { ShapeError } from "../errors.js";
import type { UNet2DConditionModel } from "../models/index.js";
import type { DDPMScheduler } from "../schedulers/index.js";
import { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { diffusionBatch, type EncodedDataset } from "./diffusion-batches.js";

/** Settings of {@link noisePredictionError}. */
export interface EvaluationOptions {
  scheduler: DDPMScheduler;
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
 * A velocity v̂ = α ε̂ − σ x̂₀ gives ε̂ = α v̂ + σ z_t (α = √ᾱ_t, σ = √(1 − ᾱ_t)), so that errors compare between
 * kinds of model.
 *
 * @param model - A frozen UNet, or one with adapters.
 * @throws {ShapeError} If the dataset is empty.
 */
export async function noisePredictionError(
  model: Pick<UNet2DConditionModel, "predict"> | Pick<FeRAModel, "predict">,
  data: EncodedDataset,
  options: EvaluationOptions,
): Promise<NoisePredictionError> {
  const { scheduler, seed, timestepsPerImage = 4, batchSize = 8, signal } = options;
  const count = data.latents.shape[0]!;
  if (count === 0) throw new ShapeError("noisePredictionError: the dataset is empty.");
  const generator = new Generator(seed);
  const total = scheduler.alphasCumprod.length;
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
    const drawn = diffusionBatch(
      data,
      batch.map(({ row }) => row),
      { scheduler, generator, timesteps: batch.map(({ timestep }) => timestep) },
    );
    const output = await model.predict({
      latents: drawn.latents,
      timesteps: drawn.timesteps,
      encoderHiddenStates: drawn.encoderHiddenStates!,
      addedConditions: drawn.addedConditions,
    });
    real.forEach(({ timestep }, i) => {
      sum += noiseError(output, drawn, i, scheduler, timestep);
    });
  }
  return { error: sum / jobs.length, count: jobs.length };
}

/** |ε̂ − ε|² / size of one sample of a batch. */
function noiseError(
  output: Tensor<"float32">,
  { latents, noise }: { latents: Tensor<"float32">; noise: Tensor<"float32"> },
  index: number,
  scheduler: DDPMScheduler,
  timestep: number,
): number {
  const size = output.size / output.shape[0]!;
  const alpha = Math.sqrt(scheduler.alphasCumprod[timestep]!);
  const sigma = Math.sqrt(1 - scheduler.alphasCumprod[timestep]!);
  const predictsVelocity = scheduler.predictionType === "v_prediction";
  let sum = 0;
  for (let i = index * size; i < (index + 1) * size; i++) {
    const predicted = predictsVelocity ? alpha * output.data[i]! + sigma * latents.data[i]! : output.data[i]!;
    sum += (predicted - noise.data[i]!) ** 2;
  }
  return sum / size;
}
