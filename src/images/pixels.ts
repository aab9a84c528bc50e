// Between interleaved 8-bit RGB pixels and the planar [-1, 1] floats that models take. Pure arithmetic, no files.

import { ShapeError } from "../errors.js";
import type { Tensor } from "../tensor/tensor.js";

/** An 8-bit sRGB image: `data` is interleaved `[height, width, 3]`. */
export interface RgbImage {
  width: number;
  height: number;
  data: Uint8Array;
}

/** A picture in either of the forms that fera's functions take: a float32 `[3, H, W]` or `[1, 3, H, W]` tensor, or bytes. */
export type ImageLike = Tensor | RgbImage;

/**
 * An image as bytes; a tensor is mapped from [-1, 1], an `RgbImage` is returned as it is.
 *
 * @throws {ShapeError} If a tensor is not float32 `[3, H, W]` or `[1, 3, H, W]`, or bytes and size do not agree.
 */
export function toRgbImage(image: ImageLike): RgbImage {
  if (!("shape" in image)) {
    const { width, height, data } = image;
    if (!(width > 0 && height > 0) || data.length !== width * height * 3) {
      throw new ShapeError(`image: ${width}×${height} RGB needs ${width * height * 3} bytes; got ${data.length}.`);
    }
    return image;
  }
  const shape = image.shape.length === 4 && image.shape[0] === 1 ? image.shape.slice(1) : image.shape;
  const [channels, height, width] = shape;
  if (!(image.data instanceof Float32Array) || shape.length !== 3 || channels !== 3 || !height || !width) {
    throw new ShapeError(`image: must be a float32 [3,H,W] tensor; got ${image.dtype} [${image.shape.join(",")}].`);
  }
  return { width, height, data: planarToRgb(image.data, height, width) };
}

/**
 * Picks images out of a stack of RGB bytes as a model's input: x = byte / 127.5 − 1.
 *
 * N images in the stack, B picked images, S side.
 *
 * @param rgb - Interleaved bytes `[N, S, S, 3]`.
 * @param size - S.
 * @param indices - B numbers from 0 to N − 1, in the order wanted; repeats are allowed.
 * @param out - Optional room for `B·3·S·S` values, so that a training loop allocates nothing.
 * @returns `[B, 3, S, S]` in [-1, 1]; `out` when it was given.
 * @throws {ShapeError} If the bytes are not whole images, an index is out of range, or `out` has another length.
 */
export function toModelInput(
  rgb: Uint8Array,
  size: number,
  indices: readonly number[] | Int32Array,
  out?: Float32Array,
): Float32Array {
  const plane = size * size;
  const count = rgb.length / (3 * plane);
  if (!Number.isInteger(count)) {
    throw new ShapeError(`toModelInput: ${rgb.length} bytes are not whole ${size}×${size} RGB images.`);
  }
  const result = out ?? new Float32Array(indices.length * 3 * plane);
  if (result.length !== indices.length * 3 * plane) {
    throw new ShapeError(
      `toModelInput: ${indices.length} images of ${size}×${size} need ${indices.length * 3 * plane} values; got out of length ${result.length}.`,
    );
  }
  for (let image = 0; image < indices.length; image++) {
    const index = indices[image]!;
    if (!Number.isInteger(index) || index < 0 || index >= count) {
      throw new ShapeError(`toModelInput: index ${index} is outside the ${count} images.`);
    }
    toPlanes(rgb, index * 3 * plane, plane, result, image * 3 * plane);
  }
  return result;
}

/**
 * One image as planar floats: x = byte / 127.5 − 1.
 *
 * @param rgb - Interleaved bytes `[H, W, 3]`.
 * @returns `[3, H, W]` in [-1, 1].
 * @throws {ShapeError} If the number of bytes is not `H·W·3`.
 */
export function rgbToPlanar(rgb: Uint8Array, height: number, width: number): Float32Array {
  if (rgb.length !== height * width * 3) {
    throw new ShapeError(`rgbToPlanar: ${height}×${width} RGB needs ${height * width * 3} bytes; got ${rgb.length}.`);
  }
  const out = new Float32Array(rgb.length);
  toPlanes(rgb, 0, height * width, out, 0);
  return out;
}

/**
 * One planar image as interleaved bytes: byte = round((x + 1) · 127.5), clamped to 0…255; NaN becomes 0.
 *
 * @param planar - `[3, H, W]`, nominally in [-1, 1].
 * @returns `[H, W, 3]`.
 * @throws {ShapeError} If the number of values is not `3·H·W`.
 */
export function planarToRgb(planar: Float32Array, height: number, width: number): Uint8Array {
  const plane = height * width;
  if (planar.length !== 3 * plane) {
    throw new ShapeError(`planarToRgb: [3,${height},${width}] has ${3 * plane} values; got ${planar.length}.`);
  }
  const out = new Uint8ClampedArray(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    for (let pixel = 0; pixel < plane; pixel++) {
      out[3 * pixel + channel] = Math.round((planar[channel * plane + pixel]! + 1) * 127.5);
    }
  }
  return new Uint8Array(out.buffer);
}

function toPlanes(rgb: Uint8Array, from: number, plane: number, out: Float32Array, to: number): void {
  for (let pixel = 0; pixel < plane; pixel++) {
    const source = from + 3 * pixel;
    out[to + pixel] = rgb[source]! / 127.5 - 1;
    out[to + plane + pixel] = rgb[source + 1]! / 127.5 - 1;
    out[to + 2 * plane + pixel] = rgb[source + 2]! / 127.5 - 1;
  }
}
