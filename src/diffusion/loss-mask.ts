// Masks of a loss: how much each place of a latent counts.

import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";

/** How masks become factors of the loss. */
export interface MaskOptions {
  /** What places outside a mask count at least, 0 to 1: with some, the rest of the picture is not forgotten. Default 0. */
  unmaskedWeight?: number;
  /** Divides each sample's mask by its mean, so that a small subject counts as much as a large one. Default false. */
  normalizeMaskedLoss?: boolean;
}

/** @throws {ConfigError} If an option has a value that it cannot have. */
export function checkMaskOptions({ unmaskedWeight = 0 }: MaskOptions): void {
  if (unmaskedWeight >= 0 && unmaskedWeight <= 1) return;
  throw new ConfigError(`unmaskedWeight must lie in 0 … 1; got ${unmaskedWeight}.`);
}

/**
 * Factors m of the loss from masks: max(mask, `unmaskedWeight`), divided by its mean over a sample where
 * `normalizeMaskedLoss` asks for it. A mask of nothing stays 0.
 *
 * @param masks - `[B, 1, h, w]` in 0 … 1; unchanged.
 */
export function lossMaskOf(masks: Tensor<"float32">, options: MaskOptions): Tensor<"float32"> {
  const { unmaskedWeight = 0, normalizeMaskedLoss = false } = options;
  const factors = masks.data.map((value) => Math.max(value, unmaskedWeight));
  if (normalizeMaskedLoss) {
    const size = factors.length / masks.shape[0]!;
    for (let start = 0; start < factors.length; start += size) {
      const sample = factors.subarray(start, start + size);
      const mean = sample.reduce((sum, value) => sum + value, 0) / size;
      if (mean > 0)
        sample.forEach((value, i) => {
          sample[i] = value / mean;
        });
    }
  }
  return new Tensor("float32", masks.shape, factors);
}
