// Draws batches of a diffusion objective from encoded images and captions: order, variants, dropout, timesteps and noise
// all come from one seeded generator, whose state is part of every checkpoint.

import type { Objective } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import type { Generator } from "../tensor/random.js";
import { type EncodedDataset, type EncodedRows, type RowDraw, rowsInMemory } from "./encoded-dataset.js";
import { type BatchPart, checkNoisingOptions, type NoisingOptions, noisedBatch } from "./noised-batch.js";
import { RowOrder, type RowOrderState } from "./row-order.js";
import type { DiffusionBatch } from "./trainable.js";

/** Settings of {@link DiffusionBatches}. */
export interface BatchOptions extends NoisingOptions {
  batchSize: number;
  /**
   * Gives this part of every batch instead of the whole: all parts together are what one stream without parts gives, and
   * states are the same. Divides `batchSize`. Only its rows are read.
   */
  part?: BatchPart | undefined;
  /** Share of captions that are replaced by the empty one, so that guidance works. */
  captionDropout?: number;
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

/** What a checkpoint holds of {@link DiffusionBatches}. */
export interface BatchStreamState extends RowOrderState {
  generator: string;
}

/** An endless, seeded stream of batches; which images come when, `RowOrder` says. */
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
    checkNoisingOptions(options);
    if (!Number.isInteger(options.batchSize) || options.batchSize < 1) {
      throw new ConfigError(`batchSize must be a positive integer; got ${options.batchSize}.`);
    }
    const { index, of } = options.part ?? { index: 0, of: 1 };
    if (
      !(
        Number.isInteger(of) &&
        of > 0 &&
        options.batchSize % of === 0 &&
        Number.isInteger(index) &&
        index >= 0 &&
        index < of
      )
    ) {
      throw new ConfigError(
        `part must be one of equal parts of a batch of ${options.batchSize}; got part ${index} of ${of}.`,
      );
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
    const isDropped = rows.map(() => generator.uniform() < captionDropout);
    const draws = rows.map((index) => this.vary(index));
    const { empty } = this.rows;
    const dropped = this.ownPart(isDropped);
    const read = await this.rows.read(this.ownPart(draws));
    const { part } = this.options;
    const batch = noisedBatch({ ...read, empty }, { ...this.options, dropped, ...(part && { part }) });
    return { ...batch, rows: this.ownPart(rows) };
  }

  private ownPart<T>(samples: readonly T[]): T[] {
    const { index, of } = this.options.part ?? { index: 0, of: 1 };
    const count = samples.length / of;
    return samples.slice(index * count, (index + 1) * count);
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
