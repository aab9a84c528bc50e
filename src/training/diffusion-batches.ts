// Draws batches of a diffusion objective from encoded images and captions: order, dropout, timesteps and noise all
// come from one seeded generator, whose state is part of every checkpoint.

import type { Objective } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { type Generator, randperm } from "../tensor/random.js";
import { checkRows, type EncodedDataset } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";
import type { DiffusionBatch } from "./trainable.js";

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

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
