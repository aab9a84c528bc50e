// Draws batches of a diffusion objective from encoded images and captions: order, dropout, timesteps and noise all
// come from one seeded generator, whose state is part of every checkpoint.

import { ConfigError } from "../errors.js";
import type { DDPMScheduler } from "../schedulers/index.js";
import { type Generator, randint, randn, randperm } from "../tensor/random.js";
import { sizeOf, Tensor, tensor } from "../tensor/tensor.js";
import type { DiffusionBatch } from "./trainable.js";

/** Images as latents, captions as text states or token ids, row by row. */
export interface EncodedDataset {
  /** Scaled clean latents `[N, C, h, w]`; for a KL autoencoder the means. */
  latents: Tensor<"float32">;
  /** Standard deviations for a KL autoencoder, like `latents`. */
  latentStd?: Tensor<"float32">;
  /** `[N, T, D]` float32 states or `[N, T]` int64 ids. */
  text: Tensor<"float32"> | Tensor<"int64">;
  /** One row of the same kind for the empty caption, which dropout puts in place. */
  emptyText: Tensor<"float32"> | Tensor<"int64">;
  /** SDXL's. P features of the pooled text. */
  addedConditions?: {
    /** `[N, P]`. */
    textEmbeds: Tensor<"float32">;
    /** For the empty caption, `[1, P]`. */
    emptyTextEmbeds: Tensor<"float32">;
    /** Original size, crop and target size, `[N, 6]`. */
    timeIds: Tensor<"float32">;
  };
}

/** Settings of {@link DiffusionBatches}. */
export interface BatchOptions {
  batchSize: number;
  /** Share of captions that are replaced by the empty one, so that guidance works. */
  captionDropout?: number;
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
  scheduler: DDPMScheduler;
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
    const shift = options.timestepShift ?? 1;
    if (!(shift > 0) || (shift !== 1 && options.timestepSampling !== "stratified")) {
      throw new ConfigError(`timestepShift must be above 0, and 1 unless sampling is stratified; got ${shift}.`);
    }
    if (!Number.isInteger(options.batchSize) || options.batchSize < 1) {
      throw new ConfigError(`batchSize must be a positive integer; got ${options.batchSize}.`);
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
    const { batchSize, generator, scheduler, timestepShift: shift = 1 } = this.options;
    const order = Array.from(randperm(batchSize, { generator }).data, Number);
    return order.map((part) => {
      const even = (part + generator.uniform()) / batchSize;
      const shifted = (shift * even) / (1 + (shift - 1) * even);
      return Math.floor(shifted * scheduler.config.num_train_timesteps);
    });
  }

  /** What a checkpoint must keep so that the stream goes on as if never cut. */
  state(): { generator: string; order: number[] } {
    return { generator: toHex(this.options.generator.getState()), order: [...this.order] };
  }

  /** Puts a kept state back. */
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
    scheduler: DDPMScheduler;
    generator: Generator;
    dropped?: readonly boolean[];
    timesteps?: readonly number[];
  },
): DiffusionBatch & { noise: Tensor<"float32"> } {
  const { scheduler, generator, dropped, timesteps: given } = options;
  const count = rows.length;
  const clean = takeRows(data.latents, rows);
  if (data.latentStd) {
    const std = takeRows(data.latentStd, rows).data;
    const jitter = randn(clean.shape, { generator }).data;
    for (let i = 0; i < clean.data.length; i++) clean.data[i] = clean.data[i]! + std[i]! * jitter[i]!;
  }
  const timesteps = given
    ? tensor([...given], [count], "int64")
    : randint(0, scheduler.config.num_train_timesteps, [count], { generator });
  const noise = randn(clean.shape, { generator });
  const target = scheduler.predictionType === "v_prediction" ? scheduler.getVelocity(clean, noise, timesteps) : noise;
  const latents = scheduler.addNoise(clean, noise, timesteps);
  const text = takeText(data.text, data.emptyText, rows, dropped);
  const conditioned = text.dtype === "int64" ? { inputIds: text } : { encoderHiddenStates: text };
  const { addedConditions: added } = data;
  const addedConditions = added && {
    textEmbeds: takeText(added.textEmbeds, added.emptyTextEmbeds, rows, dropped),
    timeIds: takeRows(added.timeIds, rows),
  };
  return { latents, timesteps, target, noise, ...conditioned, ...(added && { addedConditions }) } as DiffusionBatch & {
    noise: Tensor<"float32">;
  };
}

function takeRows(source: Tensor<"float32">, rows: readonly number[]): Tensor<"float32"> {
  const stride = sizeOf(source.shape.slice(1));
  const result = new Float32Array(rows.length * stride);
  rows.forEach((row, i) => {
    result.set(source.data.subarray(row * stride, (row + 1) * stride), i * stride);
  });
  return tensor(result, [rows.length, ...source.shape.slice(1)]);
}

function takeText(
  text: Tensor<"float32"> | Tensor<"int64">,
  emptyText: Tensor,
  rows: readonly number[],
  dropped: readonly boolean[] | undefined,
): Tensor {
  const stride = sizeOf(text.shape.slice(1));
  const size = rows.length * stride;
  const result = text.dtype === "int64" ? new BigInt64Array(size) : new Float32Array(size);
  rows.forEach((row, i) => {
    const from = dropped?.[i]
      ? emptyText.data.subarray(0, stride)
      : text.data.subarray(row * stride, (row + 1) * stride);
    result.set(from as never, i * stride);
  });
  return new Tensor(text.dtype, [rows.length, ...text.shape.slice(1)], result as never);
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
