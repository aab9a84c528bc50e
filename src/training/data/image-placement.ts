// Where a training image lies in its file, which SDXL is told of every image.

/** Two numbers of pixels each: height and width, or top and left. */
export interface ImagePlacement {
  /** Size of the file. */
  originalSize: readonly [number, number];
  /** Corner of the crop in the image after scaling. */
  cropTopLeft: readonly [number, number];
}

/**
 * The placement of an image whose smaller side is scaled to S and whose centre is cropped to S×S.
 *
 * @param own - The file's size; undefined for a drawing that is made at S×S.
 * @see Podell et al. 2023, arXiv:2307.01952, section 2.2
 */
export function centreCrop(own: { width: number; height: number } | undefined, size: number): ImagePlacement {
  if (!own) return { originalSize: [size, size], cropTopLeft: [0, 0] };
  const { width, height } = own;
  const scale = size / Math.min(width, height);
  const overhang = (side: number): number => Math.max(0, Math.round((Math.round(side * scale) - size) / 2));
  return { originalSize: [height, width], cropTopLeft: [overhang(height), overhang(width)] };
}
