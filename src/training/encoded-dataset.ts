// Images and captions as a denoiser sees them: all in memory, or row by row from wherever they lie.

import type { Conditioning } from "../diffusion/index.js";
import { ShapeError } from "../errors.js";
import { takeRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ImageVariant } from "./data/image-variant.js";

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

/** Size of an image's latents. */
export interface LatentSize {
  readonly latentHeight: number;
  readonly latentWidth: number;
}

/** Which image a batch takes, and how it is seen this time. */
export interface RowDraw {
  readonly index: number;
  /** Its centre, not mirrored, by default. */
  readonly variant?: ImageVariant;
  /** In place of the image's own caption. */
  readonly caption?: string;
}

/** Rows as they were read, one per draw. B draws. */
export interface EncodedRowBatch extends Omit<EncodedDataset, "empty"> {
  /** Factors of each row's loss `[B]`, where any differs from 1. */
  lossWeights?: Tensor<"float32">;
  /** How much each latent pixel's error counts, 0 … 1, `[B, 1, h, w]`, where there are masks. */
  lossMask?: Tensor<"float32">;
}

/** Images and captions that are read when a batch is drawn. */
export interface EncodedRows {
  readonly size: number;
  /** One row each of what caption dropout puts in place. */
  readonly empty: Conditioning;
  /** Rows of one batch have one size. */
  latentSize(index: number): LatentSize;
  /** How often an image comes in an epoch; a fraction of ½ is once in two epochs. Default 1. */
  repeats?(index: number): number;
  /** The rows of draws whose latents have one size. */
  read(draws: readonly RowDraw[]): Promise<EncodedRowBatch>;
}

/**
 * A dataset in memory as rows that are read.
 *
 * @throws {ShapeError} If a tensor has not one row per image, or one in all for the empty caption.
 */
export function rowsInMemory(data: EncodedDataset): EncodedRows {
  checkRows(data);
  const { latents, latentStd, conditioning, empty } = data;
  const [size, , latentHeight, latentWidth] = latents.shape as [number, number, number, number];
  return {
    size,
    empty,
    latentSize: () => ({ latentHeight, latentWidth }),
    async read(draws) {
      const rows = draws.map(({ index }) => index);
      return {
        latents: takeRows(latents, rows),
        ...(latentStd && { latentStd: takeRows(latentStd, rows) }),
        conditioning: Object.fromEntries(
          Object.entries(conditioning).map(([name, value]) => [name, takeRows(value, rows)]),
        ),
      };
    },
  };
}

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
