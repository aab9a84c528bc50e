// Draws batches of a diffusion objective from encoded images and captions: order, dropout, timesteps and noise all
// come from one seeded generator, whose state is part of every checkpoint.

import {
  type Conditioning,
  dropConditioning,
  type NoisedBatch,
  type Objective,
  takeConditioning,
} from "../diffusion/index.js";
import { ConfigError, ShapeError } from "../errors.js";
import { type Generator, randint, randn, randperm } from "../tensor/random.js";
import { takeRows } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { DiffusionBatch } from "./trainable.js";

/** Images as latents, and what the denoiser is told of each, row by row. */
export interface EncodedDataset {
  /** Scaled clean latents `[N, C, h, w]`; for a KL autoencoder the means. */
  latents: Tensor<"float32">;
  /** Standard deviations for a KL autoencoder, like `latents`. */
  latentStd?: Tensor<"float32">;
  /** N rows each: text states, or token ids where the text encoder is trained; classes, sizes, … */
  conditioning: Conditioning;
  /** One row each of what caption dropout puts in place; other names of `conditioning` stay. */
  empty: Conditioning;
}

/** Settings of {@link DiffusionBatches}. */
export interface BatchOptions {
  batchSize: number;
  /** Share of captions that are replaced by the empty one, so that guidance works. */
  captionDropout?: number;
  /**
   * o ≥ 0: the noise is ε + o·δ, ε standard normal `[B, C, h, w]` and δ `[B, C, 1, 1]`, so that the mean of an image can be
   * learned, too. Default 0. @see Guttenberg 2023, "Diffusion with offset noise"
   */
  noiseOffset?: number;
  /**
   * How timesteps are drawn: each on its own, or one from each of B equal parts of the range in random order, which
   * covers the range in every batch and so lowers the noise of the gradient. Default `independent`.
   */
  timestepSampling?: TimestepSampling;
  /**
   * Moves timesteps u in 0 … 1 to s·u / (1 + (s − 1)·u): above 1 towards noise, where the caption decides what is
   * drawn. Default 1. Needs stratified sampling. @see Esser et al. 2024, arXiv:2403.03206
   */
  timestepShift?: number;
  objective: Objective;
  generator: Generator;
}

export type TimestepSampling = "independent" | "stratified";

/** An endless, seeded stream of batches: every epoch is a fresh permutation. */
export class DiffusionBatches {
  private order: number[] = [];

  constructor(
    private readonly data: EncodedDataset,
    private readonly options: BatchOptions,
  ) {
    const dropout = options.captionDropout ?? 0;
    if (!(dropout >= 0 && dropout <= 1)) throw new ConfigError(`captionDropout must lie in 0 … 1; got ${dropout}.`);
    const offset = options.noiseOffset ?? 0;
    if (!(offset >= 0 && offset < Number.POSITIVE_INFINITY)) {
      throw new ConfigError(`noiseOffset must be a finite number, 0 or more; got ${offset}.`);
    }
    const shift = options.timestepShift ?? 1;
    if (!(shift > 0) || (shift !== 1 && options.timestepSampling !== "stratified")) {
      throw new ConfigError(`timestepShift must be above 0, and 1 unless sampling is stratified; got ${shift}.`);
    }
    if (!Number.isInteger(options.batchSize) || options.batchSize < 1) {
      throw new ConfigError(`batchSize must be a positive integer; got ${options.batchSize}.`);
    }
    checkRows(data);
    if (dropout > 0 && Object.keys(data.empty).length === 0) {
      throw new ConfigError(
        `captionDropout ${dropout} needs what an empty caption is: give rows in empty, such as encoderHiddenStates.`,
      );
    }
  }

  /** Draws the next batch. */
  next(): DiffusionBatch {
    const { batchSize, generator, captionDropout = 0 } = this.options;
    while (this.order.length < batchSize) {
      this.order.push(...Array.from(randperm(this.data.latents.shape[0]!, { generator }).data, Number));
    }
    const rows = this.order.splice(0, batchSize);
    const dropped = rows.map(() => generator.uniform() < captionDropout);
    const timesteps = this.options.timestepSampling === "stratified" ? this.stratifiedTimesteps() : undefined;
    return diffusionBatch(this.data, rows, { ...this.options, dropped, timesteps });
  }

  private stratifiedTimesteps(): number[] {
    const { batchSize, generator, objective, timestepShift: shift = 1 } = this.options;
    const order = Array.from(randperm(batchSize, { generator }).data, Number);
    return order.map((part) => {
      const even = (part + generator.uniform()) / batchSize;
      const shifted = (shift * even) / (1 + (shift - 1) * even);
      return Math.floor(shifted * objective.trainTimesteps);
    });
  }

  /** What a checkpoint must hold so that the stream goes on as if never interrupted. */
  state(): { generator: string; order: number[] } {
    return { generator: toHex(this.options.generator.getState()), order: [...this.order] };
  }

  /** Restores a saved state. */
  restore(state: { generator: string; order: number[] }): void {
    this.options.generator.setState(fromHex(state.generator));
    this.order = [...state.order];
  }
}

/** The batch of the given rows, with noise (and timesteps, unless given) drawn from the generator. */
export function diffusionBatch(
  data: EncodedDataset,
  rows: readonly number[],
  options: {
    objective: Objective;
    generator: Generator;
    noiseOffset?: number;
    dropped?: readonly boolean[];
    timesteps?: readonly number[];
  },
): DiffusionBatch & NoisedBatch & { noise: Tensor<"float32"> } {
  const { objective, generator, noiseOffset = 0, dropped = [], timesteps: given } = options;
  const count = rows.length;
  const clean = takeRows(data.latents, rows);
  if (data.latentStd) {
    const std = takeRows(data.latentStd, rows).data;
    const jitter = randn(clean.shape, { generator }).data;
    for (let i = 0; i < clean.data.length; i++) clean.data[i] = clean.data[i]! + std[i]! * jitter[i]!;
  }
  const timesteps = given
    ? tensor([...given], [count], "int64")
    : randint(0, objective.trainTimesteps, [count], { generator });
  const noise = randn(clean.shape, { generator });
  // Without one, nothing more is drawn.
  if (noiseOffset > 0) addOffsets(noise, noiseOffset, generator);
  const noised = objective.noised(clean, noise, Array.from(timesteps.data as ArrayLike<bigint | number>, Number));
  const conditioning = dropConditioning(takeConditioning(data.conditioning, rows), dropped, data.empty);
  return { ...conditioning, ...noised, timesteps, noise };
}

/** noise `[B, C, …]` += offset · standard normal `[B, C, 1, …]`. */
function addOffsets({ data, shape }: Tensor<"float32">, offset: number, generator: Generator): void {
  const offsets = randn(shape.slice(0, 2), { generator }).data;
  const size = data.length / offsets.length;
  for (let i = 0; i < data.length; i++) data[i] = data[i]! + offset * offsets[Math.floor(i / size)]!;
}

/** @throws {ShapeError} If a tensor has not one row per image, or one in all for the empty caption. */
function checkRows({ latents, latentStd, conditioning, empty }: EncodedDataset): void {
  const images = latents.shape[0]!;
  for (const [name, { shape }] of Object.entries({ ...conditioning, ...(latentStd && { latentStd }) })) {
    if (shape[0] === images) continue;
    throw new ShapeError(`training data: ${name} must have a row for each of ${images} images; got ${shape[0] ?? 0}.`);
  }
  for (const [name, { shape }] of Object.entries(empty)) {
    const full = conditioning[name]?.shape;
    if (full && shape[0] === 1 && shape.slice(1).join() === full.slice(1).join()) continue;
    const wanted = full ? `[${[1, ...full.slice(1)]}]` : "left out, because no image has it";
    throw new ShapeError(`training data: empty ${name} must be ${wanted}; got [${shape}].`);
  }
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
