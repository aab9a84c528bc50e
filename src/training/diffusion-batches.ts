// Draws batches of a diffusion objective from encoded images and captions: order, variants, dropout, timesteps and noise
// all come from one seeded generator, whose state is part of every checkpoint.

import type { Objective } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { type Generator, randperm } from "../tensor/random.js";
import { type EncodedDataset, type EncodedRows, type RowDraw, rowsInMemory } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";
import { RowOrder, type RowOrderState } from "./row-order.js";
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
  /** What of an image differs from one time to the next; nothing by default, and nothing is drawn for what does not. */
  variation?: RowVariation;
  objective: Objective;
  generator: Generator;
}

/** How images and captions vary each time they come. */
export interface RowVariation {
  /** Mirrors every other image, left for right, by chance. */
  flip?: boolean;
  /** Cuts the image at random places of its free play. */
  randomCrop?: boolean;
  /** The caption this time. */
  caption?: (index: number, generator: Generator) => string;
}

export type TimestepSampling = "independent" | "stratified";

/** What a checkpoint holds of {@link DiffusionBatches}. */
export interface BatchStreamState extends RowOrderState {
  generator: string;
}

/** An endless, seeded stream of batches; which images come when, {@link RowOrder} says. */
export class DiffusionBatches {
  private readonly rows: EncodedRows;
  private readonly order: RowOrder;
  /** The batch that is being drawn. */
  private drawing: Promise<unknown> = Promise.resolve();

  /** @param data - In memory, or read batch by batch. */
  constructor(
    data: EncodedDataset | EncodedRows,
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
    this.rows = "read" in data ? data : rowsInMemory(data);
    this.order = new RowOrder(this.rows, options.batchSize, options.generator);
    if (dropout > 0 && Object.keys(data.empty).length === 0) {
      throw new ConfigError(
        `captionDropout ${dropout} needs what an empty caption is: give rows in empty, such as encoderHiddenStates.`,
      );
    }
  }

  /**
   * Draws the next batch; its rows are read now. Batches that are asked for at once are drawn one after the other.
   *
   * @throws As `EncodedRows.read`.
   */
  next(): Promise<DiffusionBatch> {
    const batch = this.drawing.then(() => this.draw());
    this.drawing = batch.catch(() => undefined);
    return batch;
  }

  private async draw(): Promise<DiffusionBatch> {
    const { generator, captionDropout = 0 } = this.options;
    const rows = this.order.next();
    const dropped = rows.map(() => generator.uniform() < captionDropout);
    const draws = rows.map((index) => this.vary(index));
    const timesteps = this.options.timestepSampling === "stratified" ? this.stratifiedTimesteps() : undefined;
    const { lossWeights, lossMask, ...read } = await this.rows.read(draws);
    const all = rows.map((_, i) => i);
    const batch = diffusionBatch({ ...read, empty: this.rows.empty }, all, { ...this.options, dropped, timesteps });
    return { ...batch, ...(lossWeights && { lossWeights }), ...(lossMask && { lossMask }) };
  }

  private vary(index: number): RowDraw {
    const { generator, variation } = this.options;
    if (!variation) return { index };
    const flip = variation.flip ? generator.uniform() < 0.5 : false;
    const crop = variation.randomCrop ? { x: generator.uniform(), y: generator.uniform() } : undefined;
    const caption = variation.caption?.(index, generator);
    return {
      index,
      variant: { ...(flip && { flip }), ...(crop && { crop }) },
      ...(caption !== undefined && { caption }),
    };
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

  /**
   * What a checkpoint must hold so that the stream goes on as if never interrupted. Not to be asked for while a batch is
   * drawn.
   */
  state(): BatchStreamState {
    return { generator: toHex(this.options.generator.getState()), ...this.order.state() };
  }

  /** Restores a saved state. */
  restore(state: BatchStreamState): void {
    this.options.generator.setState(fromHex(state.generator));
    this.order.restore(state);
  }
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
