// The images that pipelines make: tensors that can be saved, shown and sent. What needs files is provided by image-file.ts,
// which only Node's entry loads; everything else is standard in browsers.

import { ConfigError, quoted, RuntimeError, ShapeError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { type ImageLike, planarToRgb, type RgbImage, rgbToPlanar } from "./pixels.js";

/** Formats that images are written in. */
export type ImageType = "image/png" | "image/jpeg" | "image/webp";

/** How an image is written. */
export interface SaveOptions {
  /** From 0 to 1. Default 0.95 of JPEG, and of WebP 1, which keeps every pixel; PNG always does. */
  quality?: number;
}

/** What a platform with files does for images. */
export interface ImageCodec {
  encode(image: ImageLike, type: ImageType, options: SaveOptions): Promise<Uint8Array>;
  /** The format follows the path's ending. */
  write(path: string, image: ImageLike, options: SaveOptions): Promise<void>;
  toSharp(image: RgbImage): Promise<Sharp>;
}

/** Types of image libraries that a platform has; Node's entry adds `sharp`, so that browsers need no types of Node. */
// biome-ignore lint/suspicious/noEmptyInterface: image-file.ts adds to it.
export interface ImageLibraries {}

type Sharp = ImageLibraries extends { sharp: infer Class } ? Class : never;

let codec: ImageCodec | undefined;

/** Called once by the platform's entry point, where there is one for files. */
export function registerImageCodec(registered: ImageCodec): void {
  codec = registered;
}

/**
 * An image: a float32 tensor `[3, H, W]` of sRGB values in [-1, 1], channels first, as models take and make it.
 *
 * A subclass of Tensor, so that what takes or compares tensors takes images too: `data` are the floats, not bytes. The 8-bit
 * pixels are in {@link toRgb}, under the names of transformers.js's `RawImage` (`width`, `height`, `channels`, `data`).
 */
export class ImageTensor extends Tensor<"float32"> {
  /** @throws {ShapeError} Unless the tensor is float32 `[3, H, W]` with H, W ≥ 1. */
  constructor(dtype: "float32", shape: readonly number[], data: Float32Array) {
    super(dtype, shape, data);
    if (dtype !== "float32" || shape.length !== 3 || shape[0] !== 3 || this.size === 0) {
      throw new ShapeError(`image: must be float32 [3,H,W] with values in [-1, 1]; got ${dtype} [${shape.join(",")}].`);
    }
  }

  /**
   * The image that a tensor holds, sharing its memory.
   *
   * @param tensor - float32 `[3, H, W]` or `[1, 3, H, W]`, nominally in [-1, 1].
   * @throws {ShapeError} If it is anything else.
   */
  static fromTensor(tensor: Tensor): ImageTensor {
    if (tensor instanceof ImageTensor) return tensor;
    const shape = tensor.shape.length === 4 && tensor.shape[0] === 1 ? tensor.shape.slice(1) : tensor.shape;
    return new ImageTensor(tensor.dtype as "float32", shape, tensor.data as Float32Array);
  }

  /**
   * The image of interleaved 8-bit pixels: RGB, or RGBA such as a canvas's `ImageData`, drawn on white where it is
   * transparent.
   *
   * @throws {ShapeError} If the number of bytes is neither `3·H·W` nor `4·H·W`.
   */
  static fromPixels({ width, height, data }: PixelData): ImageTensor {
    const channels = data.length / (width * height);
    if (channels !== 3 && channels !== 4) {
      throw new ShapeError(
        `image: ${width}×${height} needs ${3 * width * height} bytes of RGB or ${4 * width * height} of RGBA; got ${data.length}.`,
      );
    }
    const rgb = channels === 3 ? Uint8Array.from(data) : onWhite(data);
    return new ImageTensor("float32", [3, height, width], rgbToPlanar(rgb, height, width));
  }

  get width(): number {
    return this.shape[2]!;
  }

  get height(): number {
    return this.shape[1]!;
  }

  /** 3: red, green and blue. */
  get channels(): 3 {
    return 3;
  }

  /** Interleaved 8-bit pixels `[H, W, 3]`: round((x + 1) · 127.5), clamped to 0…255. */
  toRgb(): RgbImage & { channels: 3 } {
    const { width, height, channels } = this;
    return { width, height, channels, data: planarToRgb(this.data, height, width) };
  }

  /** A plain tensor with a copy of the values, `[3, H, W]`. */
  toTensor(): Tensor<"float32"> {
    return new Tensor("float32", this.shape, this.data.slice());
  }

  /**
   * The image in a canvas, ready to be shown: an `HTMLCanvasElement` in a page, an `OffscreenCanvas` in a worker.
   *
   * @throws {RuntimeError} Where there is no canvas, as in Node.
   */
  toCanvas(): HTMLCanvasElement | OffscreenCanvas {
    const { width, height } = this;
    const canvas = makeCanvas(width, height);
    const context = canvas.getContext("2d") as CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D | null;
    if (!context) throw new RuntimeError("image toCanvas: this platform gives canvases no 2d context.");
    context.putImageData(new ImageData(opaque(this.toRgb().data), width, height), 0, 0);
    return canvas;
  }

  /**
   * The image as the bytes of a file, in browsers and in Node.
   *
   * @throws {RuntimeError} If the platform cannot write that format.
   */
  async toBlob(type: ImageType = "image/png", options: SaveOptions = {}): Promise<Blob> {
    if (codec) {
      const bytes = await codec.encode(this, type, options);
      return new Blob([bytes as Uint8Array<ArrayBuffer>], { type });
    }
    const blob = await canvasBlob(this.toCanvas(), type, options.quality ?? DEFAULT_QUALITY[type]);
    if (blob.type !== type) {
      throw new RuntimeError(`image toBlob: this browser cannot write ${type}, only ${blob.type}. Use image/png.`);
    }
    return blob;
  }

  /**
   * Writes the image to a file; in a page, offers it as a download of that name.
   *
   * @param path - The format follows its ending: `.png`, `.jpg`, `.jpeg` or `.webp`.
   * @throws {ConfigError} If the ending is another one.
   * @throws {FormatError} If the file cannot be written.
   * @throws {RuntimeError} In a browser's worker, which can do neither: use {@link toBlob} there.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    if (codec) return codec.write(path, this, options);
    const type = imageTypeOf(path);
    if (typeof document === "undefined") {
      throw new RuntimeError(
        "image save: a worker has neither files nor downloads. Use toBlob(), and save it in the page.",
      );
    }
    const url = URL.createObjectURL(await this.toBlob(type, options));
    const link = document.createElement("a");
    link.href = url;
    link.download = path.split("/").at(-1)!;
    link.click();
    // Not at once: the download starts after this function has returned.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  /**
   * The image as a sharp object, for further work in Node.
   *
   * @throws {RuntimeError} In browsers, which have no sharp.
   */
  async toSharp(): Promise<Sharp> {
    if (!codec) throw new RuntimeError("image toSharp: sharp runs in Node only. Use toCanvas().");
    return codec.toSharp(this.toRgb());
  }
}

/** Interleaved 8-bit RGB or RGBA pixels; a canvas's `ImageData` is one. */
export interface PixelData {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/** Quality where none is given. A WebP file of quality 1 is lossless, in browsers too. */
export const DEFAULT_QUALITY: Readonly<Record<ImageType, number>> = {
  "image/png": 1,
  "image/jpeg": 0.95,
  "image/webp": 1,
};

const TYPES: Readonly<Record<string, ImageType>> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  webp: "image/webp",
};

/** Endings of the files that images are written to. */
export const IMAGE_ENDINGS: readonly string[] = Object.keys(TYPES).map((ending) => `.${ending}`);

/** The format that a file name's ending asks for. @throws {ConfigError} If it is not written. */
export function imageTypeOf(path: string): ImageType {
  const ending = /\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase();
  const type = ending === undefined ? undefined : TYPES[ending];
  if (!type) {
    throw new ConfigError(`image: a file must end in ${IMAGE_ENDINGS.join(", ")}; got ${quoted(path)}.`);
  }
  return type;
}

function makeCanvas(width: number, height: number): HTMLCanvasElement | OffscreenCanvas {
  if (typeof document !== "undefined") return Object.assign(document.createElement("canvas"), { width, height });
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  throw new RuntimeError("image toCanvas: there is no canvas here. In Node, use save(), toBlob() or toSharp().");
}

function canvasBlob(canvas: HTMLCanvasElement | OffscreenCanvas, type: ImageType, quality: number): Promise<Blob> {
  if ("convertToBlob" in canvas) return canvas.convertToBlob({ type, quality });
  return new Promise((resolve, reject) => {
    const done = (blob: Blob | null) =>
      blob ? resolve(blob) : reject(new RuntimeError(`image toBlob: the canvas gave no ${type}.`));
    canvas.toBlob(done, type, quality);
  });
}

/** RGB as RGBA. */
function opaque(rgb: Uint8Array): Uint8ClampedArray<ArrayBuffer> {
  const pixels = rgb.length / 3;
  const rgba = new Uint8ClampedArray(4 * pixels).fill(255);
  for (let i = 0; i < pixels; i++) {
    for (let channel = 0; channel < 3; channel++) rgba[4 * i + channel] = rgb[3 * i + channel]!;
  }
  return rgba;
}

/** RGBA over white, as RGB. */
function onWhite(rgba: Uint8Array | Uint8ClampedArray): Uint8Array {
  const pixels = rgba.length / 4;
  const rgb = new Uint8Array(3 * pixels);
  for (let i = 0; i < pixels; i++) {
    const alpha = rgba[4 * i + 3]! / 255;
    for (let channel = 0; channel < 3; channel++) {
      rgb[3 * i + channel] = Math.round(rgba[4 * i + channel]! * alpha + 255 * (1 - alpha));
    }
  }
  return rgb;
}
