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
import { sliceRows, takeRows } from "../tensor/rows.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import type { EncodedDataset, EncodedRowBatch } from "./encoded-dataset.js";
import type { DiffusionBatch } from "./trainable.js";

/** How noise and timesteps of a batch are drawn, and what masks do. */
export interface NoisingOptions extends NoiseOptions, TimestepOptions, MaskOptions {}

/** One of several equal parts of a batch. */
export interface BatchPart {
  /** 0 … of − 1. */
  index: number;
  of: number;
}

/** Options of {@link noisedBatch}. */
export interface NoisedBatchOptions extends NoisingOptions {
  objective: Objective;
  generator: Generator;
  /** Which captions are dropped, B of them. */
  dropped?: readonly boolean[];
  /** B of them; drawn by default. */
  timesteps?: readonly number[];
  /**
   * The rows, and `dropped`, are this part of a batch: timesteps and noise are drawn for all of it, so that each sample has
   * the same ones, however many parts there are.
   */
  part?: BatchPart;
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
  const { objective, generator, dropped = [], timesteps: given, part = { index: 0, of: 1 } } = options;
  const [own, ...rowShape] = rows.latents.shape as [number, number, number, number];
  const [, latentHeight, latentWidth] = rowShape;
  const whole = [own * part.of, ...rowShape];
  const begin = part.index * own;
  const ownRows = (drawn: Tensor<"float32">) => (part.of === 1 ? drawn : sliceRows(drawn, begin, begin + own));
  const draw = () =>
    drawTimesteps(options, { objective, count: own * part.of, latentHeight, latentWidth, generator }).slice(
      begin,
      begin + own,
    );
  const first = given ?? (drawsTimestepsFirst(options) ? draw() : undefined);
  const jitter = rows.latentStd && ownRows(randn(whole, { generator }));
  const clean = jitter ? jittered(rows.latents, rows.latentStd!, jitter) : rows.latents;
  const levels = first ?? draw();
  const drawn = drawNoise(whole, options, generator);
  const [noise, inputNoise] = [ownRows(drawn.noise), ownRows(drawn.inputNoise)];
  const noised = objective.noised(clean, noise, levels, inputNoise);
  const lossWeights = product(rows.lossWeights, noised.lossWeights);
  return {
    ...dropConditioning(rows.conditioning, dropped, rows.empty),
    ...noised,
    ...(lossWeights && { lossWeights }),
    ...(rows.lossMask && { lossMask: lossMaskOf(rows.lossMask, options) }),
    timesteps: objective.isContinuous ? tensor([...levels], [own]) : tensor([...levels], [own], "int64"),
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
function jittered(mean: Tensor<"float32">, std: Tensor<"float32">, normal: Tensor<"float32">): Tensor<"float32"> {
  return new Tensor(
    "float32",
    mean.shape,
    mean.data.map((value, i) => value + std.data[i]! * normal.data[i]!),
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
