// Images in and out of files, through sharp. Node only.

import path from "node:path";
import sharp from "sharp";
import { ConfigError, FormatError } from "../errors.js";
import { makeFolder, readWholeFile, writeFileAtomically } from "../formats/file-access.js";
import { Tensor } from "../tensor/tensor.js";
import { type ImageLike, rgbToPlanar, toRgbImage } from "./pixels.js";

/** An image as the bytes of a PNG file. Throws ShapeError as `toRgbImage` does. */
export async function encodePng(image: ImageLike): Promise<Uint8Array> {
  const { width, height, data } = toRgbImage(image);
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .png({ compressionLevel: 9 })
    .toBuffer();
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Writes an image as a PNG file; folders on the way are made, and a reader never sees half a file.
 *
 * @throws {ShapeError} If it is no image.
 * @throws {FormatError} If the file cannot be written.
 */
export async function writePng(file: string, image: ImageLike): Promise<void> {
  const png = await encodePng(image);
  await makeFolder(path.dirname(file)).catch((cause: Error) => {
    throw new FormatError(file, `its folder cannot be made: ${cause.message}`, { cause });
  });
  await writeFileAtomically(file, [png]);
}

/**
 * Reads a PNG, JPEG, WebP or SVG file, turned upright, on white where it is transparent.
 *
 * @param options - `size` S: the centre is cropped to a square and scaled to S×S; without it the image keeps its size.
 * @returns `[3, H, W]` in [-1, 1].
 * @throws {FormatError} If the file is missing, damaged or no image.
 */
export async function readImage(file: string, { size }: { size?: number } = {}): Promise<Tensor<"float32">> {
  if (size !== undefined && (!Number.isInteger(size) || size < 1)) {
    throw new ConfigError(`readImage: size must be a positive integer; got ${size}.`);
  }
  const bytes = await readWholeFile(file);
  try {
    const density = await densityFor(bytes, size);
    let image = sharp(bytes, { failOn: "error", density }).autoOrient();
    if (size !== undefined) image = image.resize(size, size, { fit: "cover", position: "centre" });
    const { data, info } = await image
      .flatten({ background: "white" })
      .toColourspace("srgb")
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    return new Tensor("float32", [3, info.height, info.width], rgbToPlanar(data, info.height, info.width));
  } catch (cause) {
    const reason = (cause as Error).message.split("\n")[0]!;
    throw new FormatError(file, `is no readable image: ${reason}. Use PNG, JPEG, WebP or SVG.`, { cause });
  }
}

/** Dots per inch that draw an SVG at the wanted size at once, instead of scaling a small drawing up. */
async function densityFor(bytes: Uint8Array, size: number | undefined): Promise<number | undefined> {
  if (size === undefined) return undefined;
  const { format, width, height } = await sharp(bytes).metadata();
  if (format !== "svg" || !width || !height) return undefined;
  return Math.min(100_000, Math.max(1, (72 * size) / Math.min(width, height)));
}
