// Pixels of training images: files of any kind to planes of one shape. Node only.
//
// Whatever a file holds becomes upright 8-bit sRGB: by its EXIF orientation, its colour profile (CMYK without one by
// libvips' own), grey and palettes as colours, 16 bits by their upper 8, of several pictures the first.

import type { Sharp, SharpOptions } from "sharp";
import { ConfigError, FormatError, quoted } from "../../errors.js";
import { rgbToPlanar } from "../../images/pixels.js";
import { loadSharp } from "../../images/sharp.js";
import { type PlacedImage, placeImage } from "./image-placement.js";
import { flipped, type ImageShape, type ImageVariant } from "./image-variant.js";
import type { ImageTraits } from "./source-image.js";

/** Side at which an image is looked at once, to know that all of it can be read. */
const GLANCE = 32;

/** Scaled to cover a square, a narrower image would have more pixels in a row than libvips counts. */
const MOST_STRETCHED = 1000;

/** The image library's own limit, against small files that unfold to fill the memory; in millions. */
const MOST_PIXELS = 268;

/**
 * Reads a whole image once, and tells what it is like.
 *
 * @throws {FormatError} If it is damaged or no image, has more pixels than are read, or is next to a line.
 */
export async function describeImage(bytes: Uint8Array, source: string): Promise<ImageTraits> {
  return withReason(source, async () => {
    const sharp = await loadSharp();
    const { format, autoOrient, orientation = 1, pages = 1, hasAlpha } = await sharp(bytes).metadata();
    checkProportions(autoOrient, source);
    const { data, info } = await sharp(bytes, { failOn: "error" })
      .resize(GLANCE, GLANCE, { fit: "fill" })
      .toColourspace("srgb")
      .raw()
      .toBuffer({ resolveWithObject: true });
    let isTransparent = false;
    for (let i = info.channels - 1; hasAlpha && i < data.length; i += info.channels) isTransparent ||= data[i]! < 255;
    return {
      own: { width: autoOrient.width, height: autoOrient.height },
      isDrawing: format === "svg",
      isTurned: orientation > 1,
      isAnimated: pages > 1 || (format === "png" && isAnimatedPng(bytes)),
      isTransparent,
    };
  });
}

function checkProportions({ width, height }: ImageShape, source: string): void {
  if (Math.max(width, height) <= MOST_STRETCHED * Math.min(width, height)) return;
  throw new FormatError(
    source,
    `has ${width}×${height} pixels: one side is more than ${MOST_STRETCHED} times the other. Cut a part out of it.`,
  );
}

/** APNG tells before the pixels that there are frames; libvips does not look. */
function isAnimatedPng(bytes: Uint8Array): boolean {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 8 <= view.length; at += 12 + view.readUInt32BE(at)) {
    const type = view.toString("latin1", at + 4, at + 8);
    if (type === "acTL" || type === "IDAT") return type === "acTL";
  }
  return false;
}

/** How an image becomes planes. */
export interface PixelOptions extends ImageVariant {
  traits: Pick<ImageTraits, "own" | "isDrawing">;
  shape: ImageShape;
  /** What lies behind transparent parts, as any CSS colour. */
  background: string;
}

/**
 * An image scaled so that it covers its shape, cut, on the background where it is transparent.
 *
 * @returns `[3, H, W]` in [-1, 1].
 * @throws {FormatError} If it is damaged or no image.
 */
export async function imagePlanes(bytes: Uint8Array, source: string, options: PixelOptions): Promise<Float32Array> {
  const { shape, background, flip } = options;
  return withReason(source, async () => {
    const image = await cut(bytes, options);
    const rgb = await image.flatten({ background }).toColourspace("srgb").removeAlpha().raw().toBuffer();
    return flipped(rgbToPlanar(rgb, shape.height, shape.width), shape.width, flip);
  });
}

/**
 * How far an image is opaque, scaled and cut as {@link imagePlanes} does.
 *
 * @returns `[1, H, W]` in 0…1.
 */
export async function alphaPlane(
  bytes: Uint8Array,
  source: string,
  options: Omit<PixelOptions, "background">,
): Promise<Float32Array> {
  return withReason(source, async () => {
    const image = await cut(bytes, options);
    const { data, info } = await image.ensureAlpha().toColourspace("srgb").raw().toBuffer({ resolveWithObject: true });
    return plane(data, info.channels, info.channels - 1, options);
  });
}

/**
 * The brightness of a mask that belongs to an image, scaled and cut as {@link imagePlanes} does the image: white counts,
 * black does not; transparent parts are black.
 *
 * @returns `[1, H, W]` in 0…1.
 */
export async function maskPlane(
  bytes: Uint8Array,
  source: string,
  options: Omit<PixelOptions, "background">,
): Promise<Float32Array> {
  return withReason(source, async () => {
    const image = await cut(bytes, options);
    const { data, info } = await image
      .flatten({ background: "black" })
      .removeAlpha()
      .toColourspace("b-w")
      .raw()
      .toBuffer({ resolveWithObject: true });
    return plane(data, info.channels, 0, options);
  });
}

function plane(
  data: Uint8Array,
  channels: number,
  channel: number,
  { shape, flip }: Pick<PixelOptions, "shape" | "flip">,
): Float32Array {
  const values = new Float32Array(shape.width * shape.height);
  for (let i = 0; i < values.length; i++) values[i] = data[i * channels + channel]! / 255;
  return flipped(values, shape.width, flip);
}

async function cut(bytes: Uint8Array, options: Omit<PixelOptions, "background">): Promise<Sharp> {
  const { scaled, left, top } = placeImage(options.traits.own, options.shape, options.crop);
  return cutAt(bytes, options, { scaled, left, top });
}

async function cutAt(
  bytes: Uint8Array,
  { traits, shape }: Pick<PixelOptions, "traits" | "shape">,
  { scaled, left, top }: PlacedImage,
): Promise<Sharp> {
  const sharp = await loadSharp();
  const input: SharpOptions = { failOn: "error" };
  // A drawing is made at the wanted size at once, instead of scaling a small one up. 72 dots per inch is its own size.
  if (traits.isDrawing) {
    const scale = Math.max(scaled.width / traits.own.width, scaled.height / traits.own.height);
    input.density = Math.min(100_000, Math.max(1, 72 * scale));
  }
  return sharp(bytes, input)
    .autoOrient()
    .resize(scaled.width, scaled.height, { fit: "fill" })
    .extract({ left, top, width: shape.width, height: shape.height });
}

/** @throws {ConfigError} If a text is no colour. */
export async function checkColour(colour: string): Promise<void> {
  const sharp = await loadSharp();
  try {
    sharp({ create: { width: 1, height: 1, channels: 3, background: colour } });
  } catch (cause) {
    throw new ConfigError(
      `dataset: background must be a colour such as white, #808080 or rgb(255, 0, 0); got ${quoted(colour)}.`,
      { cause },
    );
  }
}

/** What the pixels depend on beside the file: raised with {@link READING}, or another image library. */
export async function readingVersion(): Promise<string> {
  const sharp = await loadSharp();
  return `${READING} vips ${sharp.versions.vips}`;
}

/** Raised when files are read otherwise than before. */
const READING = 2;

async function withReason<T>(source: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(source, reasonIn((cause as Error).message), { cause });
  }
}

/** What the image library says, in words. */
function reasonIn(message: string): string {
  if (/pixel limit/.test(message)) return `has more pixels than are read, ${MOST_PIXELS} million. Make it smaller.`;
  const reason = message.split("\n")[0]!.replace(/\.+$/, "");
  return `is no readable image: ${reason}. Use PNG, JPEG, WebP, TIFF, GIF, AVIF or SVG.`;
}
