// Images in and out of files, through sharp. Node only.

import path from "node:path";
import sharp, { type Sharp } from "sharp";
import { ConfigError, FormatError, quoted } from "../errors.js";
import { makeFolder, withFile, writeFileAtomically } from "../storage/file-access.js";
import { Tensor } from "../tensor/tensor.js";
import { type ImageLike, rgbToPlanar, toRgbImage } from "./pixels.js";

const MAX_IMAGE_BYTES = 2 ** 29;

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
  await writeBytes(file, await encodePng(image));
}

async function writeBytes(file: string, bytes: Uint8Array): Promise<void> {
  await makeFolder(path.dirname(file)).catch((cause: Error) => {
    throw new FormatError(file, `its folder cannot be made: ${cause.message}`, { cause });
  });
  await writeFileAtomically(file, [bytes]);
}

const ENCODERS: Readonly<Record<string, (image: Sharp) => Sharp>> = {
  ".png": (image) => image.png({ compressionLevel: 9 }),
  ".jpg": (image) => image.jpeg({ quality: 95, chromaSubsampling: "4:4:4" }),
  ".jpeg": (image) => image.jpeg({ quality: 95, chromaSubsampling: "4:4:4" }),
  ".webp": (image) => image.webp({ lossless: true }),
};

/** Endings of the files that {@link writeImage} writes. */
export const IMAGE_ENDINGS: readonly string[] = Object.keys(ENCODERS);

/**
 * Writes an image in the format that the file's ending names: PNG and WebP keep every pixel, JPEG has quality 95.
 *
 * @throws {ConfigError} If the ending is another one.
 * @throws {ShapeError} If it is no image.
 * @throws {FormatError} If the file cannot be written.
 */
export async function writeImage(file: string, image: ImageLike): Promise<void> {
  const encode = ENCODERS[path.extname(file).toLowerCase()];
  if (!encode) {
    throw new ConfigError(`writeImage: a file must end in ${IMAGE_ENDINGS.join(", ")}; got ${quoted(file)}.`);
  }
  const { width, height, data } = toRgbImage(image);
  await writeBytes(file, await encode(sharp(data, { raw: { width, height, channels: 3 } })).toBuffer());
}

/** The size of an image that is read. What is asked for is reached by scaling, and by cutting off what overhangs. */
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
 * Reads a PNG, JPEG, WebP or SVG file, turned upright, on white where it is transparent.
 *
 * @param options - The size wanted; without any the image keeps its own.
 * @returns `[3, H, W]` in [-1, 1].
 * @throws {ConfigError} If a size is no positive integer.
 * @throws {FormatError} If the file is missing, damaged or no image.
 */
export async function readImage(file: string, options: ReadImageOptions = {}): Promise<Tensor<"float32">> {
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
): Promise<Tensor<"float32">> {
  for (const [name, pixels] of Object.entries(options)) {
    if (pixels !== undefined && (!Number.isInteger(pixels) || pixels < 1)) {
      throw new ConfigError(`readImage: ${name} must be a positive integer; got ${pixels}.`);
    }
  }
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
    return new Tensor("float32", [3, info.height, info.width], rgbToPlanar(data, info.height, info.width));
  } catch (cause) {
    const reason = (cause as Error).message.split("\n")[0]!;
    throw new FormatError(source, `is no readable image: ${reason}. Use PNG, JPEG, WebP or SVG.`, { cause });
  }
}

/**
 * The size of an image file, turned upright; undefined for an SVG, which is drawn at any size.
 *
 * @throws {FormatError} If the file is missing, damaged or no image.
 */
export async function readImageSize(file: string): Promise<Size | undefined> {
  const bytes = await readImageBytes(file);
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
