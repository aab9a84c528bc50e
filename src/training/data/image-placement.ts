// How an image comes to the shape at which it is trained on: scaled to cover it, and cut. SDXL is told of it.

import type { ImageShape, ImageVariant } from "./image-variant.js";

/** Two numbers of pixels each: height and width, or top and left. */
export interface ImagePlacement {
  /** Size of the file. */
  originalSize: readonly [number, number];
  /** Corner of the crop in the image after scaling. */
  cropTopLeft: readonly [number, number];
}

/** An image after scaling, and the corner of the cut in it. */
export interface PlacedImage {
  scaled: ImageShape;
  left: number;
  top: number;
}

/**
 * Scales by max(W / w, H / h), w×h the image's own pixels and W×H its shape, and cuts W×H out.
 *
 * @param crop - Share of the free play that lies left of and above the cut; the centre by default.
 */
export function placeImage(own: ImageShape, shape: ImageShape, crop: ImageVariant["crop"] = CENTRE): PlacedImage {
  const scale = Math.max(shape.width / own.width, shape.height / own.height);
  const scaled = {
    width: Math.max(shape.width, Math.round(own.width * scale)),
    height: Math.max(shape.height, Math.round(own.height * scale)),
  };
  return {
    scaled,
    left: Math.round((scaled.width - shape.width) * crop.x),
    top: Math.round((scaled.height - shape.height) * crop.y),
  };
}

const CENTRE = { x: 0.5, y: 0.5 };

/**
 * What SDXL is told of an image.
 *
 * @param own - The file's size; undefined for a drawing, which is made at its shape.
 * @see Podell et al. 2023, arXiv:2307.01952, section 2.2
 */
export function placementOf(
  own: ImageShape | undefined,
  shape: ImageShape,
  crop?: ImageVariant["crop"],
): ImagePlacement {
  if (!own) return { originalSize: [shape.height, shape.width], cropTopLeft: [0, 0] };
  const { left, top } = placeImage(own, shape, crop);
  return { originalSize: [own.height, own.width], cropTopLeft: [top, left] };
}
