// Images of a data set as a training sees them: read upright, scaled to cover a square, cut in the middle, on white. For the
// page and its worker.

import { placeImage } from "../../../src/training/data/image-placement.js";

/** Larger files are refused before they are read. */
const MOST_BYTES = 64e6;
const MOST_PIXELS = 100e6;

/** Endings of files that browsers can show. */
const IMAGE_NAME = /\.(png|jpe?g|webp|gif|bmp|avif)$/i;

export const isImageName = (name: string): boolean => IMAGE_NAME.test(name);

/** The name of an image's caption: `a.png` has `a.txt`. */
export const captionName = (image: string): string => image.replace(/\.[^.]*$/, ".txt");

/** What an image without a caption is called by: the words of its name. */
export const wordsOf = (image: string): string =>
  image
    .replace(/\.[^.]*$/, "")
    .replaceAll(/[_-]+/g, " ")
    .trim();

/** A file as a picture, upright. To be closed. @throws {Error} In words where it is none. */
export async function readImage(file: Blob): Promise<ImageBitmap> {
  if (file.size > MOST_BYTES) {
    throw new Error(`is larger than ${MOST_BYTES / 1e6} MB; make it smaller`);
  }
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("is no image that this browser can read, or is damaged");
  }
  if (bitmap.width * bitmap.height <= MOST_PIXELS) return bitmap;
  const { width, height } = bitmap;
  bitmap.close();
  throw new Error(`has ${width}×${height} pixels; at most ${MOST_PIXELS / 1e6} million can be read`);
}

/** A picture at the size of a training, on white: RGBA. */
export function squarePixels(bitmap: ImageBitmap, side: number): ImageData {
  const { scaled, left, top } = placeImage(bitmap, { width: side, height: side });
  const context = contextOf(side, side);
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  context.drawImage(bitmap, -left, -top, scaled.width, scaled.height);
  return context.getImageData(0, 0, side, side);
}

/** RGBA as planes `[3, side, side]` in −1 … 1. */
export function planesOf({ data }: ImageData): Float32Array {
  const pixels = data.length / 4;
  const planes = new Float32Array(3 * pixels);
  for (let i = 0; i < pixels; i++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * pixels + i] = data[4 * i + channel]! / 127.5 - 1;
  }
  return planes;
}

/** A picture scaled to at most `side` pixels, its transparency kept. */
export function scaledCanvas(bitmap: ImageBitmap, side: number): OffscreenCanvas {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const context = contextOf(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return context.canvas;
}

function contextOf(width: number, height: number): OffscreenCanvasRenderingContext2D {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  return context;
}
