// What of an image is worth a second look, found by reading it once; the sentences are the server's, too.

import { looksBlurred, sharpnessOf } from "../../../src/images/sharpness.js";
import type { ImageWarning } from "../../../src/studio/protocol.js";
import { warningTexts } from "../../../src/studio/warning-texts.js";
import { MUCH_LOST } from "../../../src/training/data/dataset-findings.js";
import type { PlacedImage } from "../../../src/training/data/image-placement.js";
import { readImage, scaledCanvas, squarePixels, wordsOf } from "./images.js";

/** What reading an image tells. */
export interface ImageFacts {
  width: number;
  height: number;
  /** Equal for equal files. */
  hash: string;
  isTransparent: boolean;
  /** At the size it is trained at. */
  isBlurred: boolean;
}

/** Side at which transparency is looked for. */
const LOOKED_AT = 256;

/** @throws {Error} In words where the file is no image. */
export async function imageFacts(file: File, resolution: number): Promise<ImageFacts> {
  const bitmap = await readImage(file);
  try {
    const canvas = scaledCanvas(bitmap, LOOKED_AT);
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
    let isTransparent = false;
    for (let i = 3; i < data.length && !isTransparent; i += 4) isTransparent = data[i]! < 255;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
    const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const isBlurred = looksBlurred(sharpnessOf(rgbOf(squarePixels(bitmap, resolution))));
    return { width: bitmap.width, height: bitmap.height, hash, isTransparent, isBlurred };
  } finally {
    bitmap.close();
  }
}

function rgbOf({ width, height, data }: ImageData) {
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) rgb.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return { width, height, data: rgb };
}

/**
 * @param place - How it comes to the square that is trained on.
 * @param caption - Undefined where it has none.
 * @param sameFiles - Names of all files with its bytes, its own among them.
 */
export function imageWarnings(
  name: string,
  facts: ImageFacts,
  place: PlacedImage & { side: number },
  caption: string | undefined,
  sameFiles: readonly string[],
): ImageWarning[] {
  const { width, height, isTransparent, isBlurred } = facts;
  const { side, scaled } = place;
  const lost = 1 - side ** 2 / (scaled.width * scaled.height);
  return warningTexts({
    own: { width, height },
    upscaling: side / Math.min(width, height),
    lost: lost > MUCH_LOST ? lost : undefined,
    copies: sameFiles.filter((other) => other !== name),
    caption: caption?.trim() ?? wordsOf(name),
    isUncaptioned: caption === undefined,
    // A browser turns images by itself, and does not say so; nor does it tell of frames.
    ...{ isBlurred, isTransparent, isTurned: false, isAnimated: false },
  });
}
