// How sharp a picture is, told by its finest detail. Pure arithmetic, no files.

import { type ImageLike, toRgbImage } from "./pixels.js";

/** Weights of red, green and blue in brightness (ITU-R BT.601). */
const BRIGHTNESS = [0.299, 0.587, 0.114] as const;

/**
 * The finest detail of a picture, and how much there is to see at all.
 *
 * Y brightness, 0 … 255. ∇²Y the discrete Laplacian, Y(x−1) + Y(x+1) + Y(y−1) + Y(y+1) − 4Y.
 */
export interface Sharpness {
  /** var ∇²Y: small where there is no fine detail. */
  detail: number;
  /** var Y: small where the picture is nearly of one colour, and says nothing about sharpness. */
  contrast: number;
}

/**
 * Measures a picture at the size it has; one that is scaled up has less detail, one that is scaled down more.
 *
 * @see Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy: the variance of the Laplacian
 */
export function sharpnessOf(image: ImageLike): Sharpness {
  const { width, height, data } = toRgbImage(image);
  const brightness = new Float32Array(width * height);
  for (let i = 0; i < brightness.length; i++) {
    brightness[i] = BRIGHTNESS[0] * data[3 * i]! + BRIGHTNESS[1] * data[3 * i + 1]! + BRIGHTNESS[2] * data[3 * i + 2]!;
  }
  const laplacian: number[] = [];
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = y * width + x;
      laplacian.push(
        brightness[i - 1]! + brightness[i + 1]! + brightness[i - width]! + brightness[i + width]! - 4 * brightness[i]!,
      );
    }
  }
  return { detail: varianceOf(laplacian), contrast: varianceOf(brightness) };
}

/** Detail below which there is none, whatever is shown: of photos that were blurred by two pixels the greater part. */
const LITTLE_DETAIL = 25;
/** The same as a share of the contrast: calm pictures have little of both. */
const LITTLE_SHARE = 0.015;
/** Below it a picture is a plain surface. */
const PLAIN_CONTRAST = 100;

/**
 * Whether a picture looks blurred at the size at which it was measured.
 *
 * The limits were chosen on photos at 512×512 pixels and copies of them blurred by a Gaussian of σ = 2 pixels: none of the
 * sharp ones is taken for blurred, and the blurred ones are found, but for those of fine texture or of print.
 */
export function looksBlurred({ detail, contrast }: Sharpness): boolean {
  return contrast >= PLAIN_CONTRAST && detail < LITTLE_DETAIL && detail < LITTLE_SHARE * contrast;
}

function varianceOf(values: ArrayLike<number>): number {
  let mean = 0;
  let squares = 0;
  // Welford's running form: no cancellation in long sums.
  for (let i = 0; i < values.length; i++) {
    const change = values[i]! - mean;
    mean += change / (i + 1);
    squares += change * (values[i]! - mean);
  }
  return values.length === 0 ? 0 : squares / values.length;
}
