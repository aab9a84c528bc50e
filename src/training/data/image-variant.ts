// The ways in which one image is seen in training: mirrored, and cut elsewhere.

/** Pixels of an image as it is trained on. */
export interface ImageShape {
  readonly width: number;
  readonly height: number;
}

/** How an image is taken this time. */
export interface ImageVariant {
  /** Mirrored, left for right. */
  flip?: boolean;
  /** Where the cut lies in its free play, 0 (left, top) to 1 (right, bottom); the centre, 0.5, by default. */
  crop?: { x: number; y: number };
}

/**
 * Planes mirrored left for right where asked for, in place.
 *
 * @param planes - `[C, H, W]` of any C and H.
 * @param width - W.
 */
export function flipped(planes: Float32Array, width: number, flip: boolean | undefined): Float32Array {
  if (flip) for (let row = 0; row < planes.length; row += width) planes.subarray(row, row + width).reverse();
  return planes;
}
