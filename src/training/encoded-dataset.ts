// Images and captions as a denoiser sees them.

import type { Conditioning } from "../diffusion/index.js";
import { ShapeError } from "../errors.js";
import type { Tensor } from "../tensor/tensor.js";

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

/** @throws {ShapeError} If a tensor has not one row per image, or one in all for the empty caption. */
export function checkRows({ latents, latentStd, conditioning, empty }: EncodedDataset): void {
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
