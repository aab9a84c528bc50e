// Between an autoencoder's latents z and those that a diffusion model works on: (z − shift) · scale.

import { ShapeError } from "../../errors.js";
import { Tensor } from "../../tensor/tensor.js";

/**
 * Shifts and scales of latents `[B, C, h, w]`: of all together, or of each channel at each place of a patch of p×p latent
 * pixels.
 */
export interface LatentScaling {
  /** p; 1 where all places are alike. */
  patch: number;
  /** One for all, or C·p·p of them, index (c·p + y mod p)·p + x mod p. */
  shift: Float64Array;
  /** As `shift`. */
  scale: Float64Array;
}

/** The same shift and scale everywhere. */
export const evenScaling = (shift: number, scale: number): LatentScaling => ({
  patch: 1,
  shift: Float64Array.of(shift),
  scale: Float64Array.of(scale),
});

/** z to what a diffusion model works on. @throws {ShapeError} If the latents have other channels. */
export const scaledLatents = (z: Tensor<"float32">, scaling: LatentScaling): Tensor<"float32"> =>
  mapped(z, scaling, (value, shift, scale) => (value - shift) * scale);

/** What a diffusion model works on to z. @throws {ShapeError} If the latents have other channels. */
export const unscaledLatents = (latents: Tensor<"float32">, scaling: LatentScaling): Tensor<"float32"> =>
  mapped(latents, scaling, (value, shift, scale) => value / scale + shift);

/** Standard deviations of z to those of the scaled latents. @throws {ShapeError} If they have other channels. */
export const scaledSpread = (std: Tensor<"float32">, scaling: LatentScaling): Tensor<"float32"> =>
  mapped(std, scaling, (value, _, scale) => value * scale);

function mapped(
  x: Tensor<"float32">,
  { patch, shift, scale }: LatentScaling,
  change: (value: number, shift: number, scale: number) => number,
): Tensor<"float32"> {
  if (shift.length === 1) {
    const [only, factor] = [shift[0]!, scale[0]!];
    return new Tensor(
      "float32",
      x.shape,
      x.data.map((value) => change(value, only, factor)),
    );
  }
  const [, channels = 0, height = 0, width = 0] = x.shape;
  if (x.shape.length !== 4 || channels * patch * patch !== shift.length) {
    throw new ShapeError(
      `latents must be [B, ${shift.length / patch ** 2}, h, w]; got [${x.shape.join(",")}], which the autoencoder does not scale.`,
    );
  }
  const data = x.data.map((value, i) => {
    const column = i % width;
    const row = Math.floor(i / width) % height;
    const channel = Math.floor(i / (width * height)) % channels;
    const at = (channel * patch + (row % patch)) * patch + (column % patch);
    return change(value, shift[at]!, scale[at]!);
  });
  return new Tensor("float32", x.shape, data);
}
