// Images in and out of files, through sharp. Node only: importing it provides ImageTensor's save() and toBlob() there.

import path from "node:path";
import type { Sharp } from "sharp";
import { ConfigError, FormatError } from "../errors.js";
import { makeFolder, withFile, writeFileAtomically } from "../storage/file-access.js";
import {
  DEFAULT_QUALITY,
  ImageTensor,
  type ImageType,
  imageTypeOf,
  registerImageCodec,
  type SaveOptions,
} from "./image-tensor.js";
import { type ImageLike, type RgbImage, rgbToPlanar, toRgbImage } from "./pixels.js";
import { loadSharp } from "./sharp.js";

declare module "./image-tensor.js" {
  interface ImageLibraries {
    sharp: Sharp;
  }
}

const MAX_IMAGE_BYTES = 2 ** 29;

/**
 * An image as the bytes of a file. PNG keeps every pixel, and so does WebP unless a quality is given.
 *
 * @throws {ShapeError} As `toRgbImage` does.
 * @throws {ConfigError} If the quality is not between 0 and 1.
 */
export async function encodeImage(image: ImageLike, type: ImageType, options: SaveOptions = {}): Promise<Uint8Array> {
  const { quality: share = DEFAULT_QUALITY[type] } = options;
  if (!(share >= 0 && share <= 1)) throw new ConfigError(`image: quality must be between 0 and 1; got ${share}.`);
  const quality = Math.max(1, Math.round(100 * share));
  const made = await toSharp(toRgbImage(image));
  if (type === "image/png") made.png({ compressionLevel: 9 });
  else if (type === "image/jpeg") made.jpeg({ quality, chromaSubsampling: "4:4:4" });
  else made.webp(share === 1 ? { lossless: true } : { quality });
  const bytes = await made.toBuffer();
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** An image as the bytes of a PNG file. Throws ShapeError as `toRgbImage` does. */
export const encodePng = (image: ImageLike): Promise<Uint8Array> => encodeImage(image, "image/png");

/**
 * Writes an image file; folders on the way are made, and a reader never sees half a file.
 *
 * @param file - The format follows its ending: `.png`, `.jpg`, `.jpeg` or `.webp`.
 * @throws {ConfigError} If the ending is another one.
 * @throws {ShapeError} If it is no image.
 * @throws {FormatError} If the file cannot be written.
 */
export async function writeImage(file: string, image: ImageLike, options: SaveOptions = {}): Promise<void> {
  await writeBytes(file, await encodeImage(image, imageTypeOf(file), options));
}

/** As {@link writeImage}, a PNG file whatever its ending. */
export async function writePng(file: string, image: ImageLike): Promise<void> {
  await writeBytes(file, await encodePng(image));
}

async function writeBytes(file: string, bytes: Uint8Array): Promise<void> {
  await makeFolder(path.dirname(file)).catch((cause: Error) => {
    throw new FormatError(file, `its folder cannot be made: ${cause.message}`, { cause });
  });
  await writeFileAtomically(file, [bytes]);
}

async function toSharp({ width, height, data }: RgbImage): Promise<Sharp> {
  const sharp = await loadSharp();
  return sharp(data, { raw: { width, height, channels: 3 } });
}

registerImageCodec({ encode: encodeImage, write: writeImage, toSharp });

/** The size of an image that is read: scaled to cover it, then cropped around the centre. */
export interface ReadImageOptions {
  /** Pixels of both sides. */
  size?: number;
  /** Pixels; where only one side is given, the other follows the image's proportions. Default: the image's own. */
  width?: number | undefined;
  /** As `width`. */
  height?: number | undefined;
  /** Sides that are not given become multiples of this: the nearest beside a given side, else the next smaller. Default 1. */
  multipleOf?: number;
}

interface Size {
  width: number;
  height: number;
}

/**
 * Reads a PNG, JPEG, WebP or SVG file, rotated upright, on white where it is transparent.
 *
 * @param options - The size wanted; without any the image keeps its own.
 * @returns `[3, H, W]` in [-1, 1].
 * @throws {ConfigError} If a size is no positive integer.
 * @throws {FormatError} If the file is missing, damaged or no image.
 */
export async function readImage(file: string, options: ReadImageOptions = {}): Promise<ImageTensor> {
  return decodeImage(await readImageBytes(file), file, options);
}

/** An image file's bytes. @throws {FormatError} If it is missing, or larger than any photo. */
export function readImageBytes(file: string): Promise<Uint8Array> {
  return withFile(file, ({ sizeBytes, read }) => {
    if (sizeBytes > MAX_IMAGE_BYTES) {
      throw new FormatError(file, `has ${sizeBytes} bytes; images of at most ${MAX_IMAGE_BYTES} are read.`);
    }
    return read(0, sizeBytes);
  });
}

/**
 * Decodes as {@link readImage} does.
 *
 * @param source - Names the image in messages.
 */
export async function decodeImage(
  bytes: Uint8Array,
  source: string,
  options: ReadImageOptions = {},
): Promise<ImageTensor> {
  for (const [name, pixels] of Object.entries(options)) {
    if (pixels !== undefined && (!Number.isInteger(pixels) || pixels < 1)) {
      throw new ConfigError(`readImage: ${name} must be a positive integer; got ${pixels}.`);
    }
  }
  const sharp = await loadSharp();
  try {
    const { format, autoOrient: own } = await sharp(bytes).metadata();
    const wanted = wantedSize(own, options);
    const scale = Math.max(wanted.width / own.width, wanted.height / own.height);
    // An SVG is drawn at the wanted size at once, instead of scaling a small drawing up. 72 dots per inch is its own size.
    const density = format === "svg" ? Math.min(100_000, Math.max(1, 72 * scale)) : undefined;
    let image = sharp(bytes, { failOn: "error", density }).autoOrient();
    if (wanted.width !== own.width || wanted.height !== own.height) {
      image = image.resize(wanted.width, wanted.height, { fit: "cover", position: "centre" });
    }
    const { data, info } = await image
      .flatten({ background: "white" })
      .toColourspace("srgb")
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    return new ImageTensor("float32", [3, info.height, info.width], rgbToPlanar(data, info.height, info.width));
  } catch (cause) {
    const reason = (cause as Error).message.split("\n")[0]!;
    throw new FormatError(source, `is no readable image: ${reason}. Use PNG, JPEG, WebP or SVG.`, { cause });
  }
}

/**
 * The size of an image file, rotated upright; undefined for an SVG, which is drawn at any size.
 *
 * @throws {FormatError} If the file is missing, damaged or no image.
 */
export async function readImageSize(file: string): Promise<Size | undefined> {
  const bytes = await readImageBytes(file);
  const sharp = await loadSharp();
  const { format, autoOrient } = await sharp(bytes)
    .metadata()
    .catch((cause: Error) => {
      throw new FormatError(file, `is no readable image: ${cause.message}.`, { cause });
    });
  return format === "svg" ? undefined : { width: autoOrient.width, height: autoOrient.height };
}

function wantedSize(own: Size, { size, width = size, height = size, multipleOf = 1 }: ReadImageOptions): Size {
  const multiple = (pixels: number, round: (value: number) => number): number =>
    Math.max(1, round(pixels / multipleOf)) * multipleOf;
  if (width !== undefined) {
    return { width, height: height ?? multiple((width * own.height) / own.width, Math.round) };
  }
  if (height !== undefined) return { width: multiple((height * own.width) / own.height, Math.round), height };
  return { width: multiple(own.width, Math.floor), height: multiple(own.height, Math.floor) };
}
