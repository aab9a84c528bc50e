// What is worth a second look in an image: found by reading it once.

import { looksBlurred, sharpnessOf } from "../../../src/images/sharpness.js";
import type { ImageWarning } from "../../../src/studio/protocol.js";
import { readImage, scaledCanvas, squarePixels } from "./images.js";

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

/** @param seen - At which size it is trained, its caption if it has one, and the first image with the same bytes. */
export function imageWarnings(
  { width, height, isTransparent, isBlurred }: ImageFacts,
  seen: { resolution: number; caption: string | undefined; copyOf: string | undefined },
): ImageWarning[] {
  const { resolution, caption, copyOf } = seen;
  const warnings: ImageWarning[] = [];
  if (Math.min(width, height) < resolution) {
    const text = `${width}×${height} pixels are enlarged to ${resolution}: it is trained on blurred.`;
    warnings.push({ kind: "tiny", text });
  } else if (isBlurred) {
    warnings.push({ kind: "blurred", text: "It looks blurred at the size it is trained at." });
  }
  if (copyOf !== undefined) {
    warnings.push({ kind: "duplicate", text: `It is the same file as ${copyOf}, and counts twice.` });
  }
  if (caption === undefined) {
    warnings.push({ kind: "uncaptioned", text: "It has no caption: it is trained on with the words of its name." });
  } else if (caption.trim() === "") {
    warnings.push({ kind: "emptyCaption", text: "Its caption is empty: prompts cannot ask for what it shows." });
  }
  if (isTransparent) warnings.push({ kind: "transparent", text: "Its transparent parts are trained on as white." });
  return warnings;
}
