// Which form of a convolution is the fastest on the CPU: an estimate from measured costs, in multiply-adds of the plain
// forward operator.

import { KERNEL, PRODUCTS, tilesOf } from "./winograd-transforms.js";

/** `tiles` transforms patch by patch; `whole` multiplies all pixels of a small image by one matrix. */
export type WinogradForm = "tiles" | "whole";
export type Direction = "forward" | "gradient";

/** A multiply-add of ConvTranspose. */
const TRANSPOSED = 1.4;
/** Flipping one element of a weight, so that the plain operator computes a gradient. */
const FLIPPING = 400;
/**
 * The parts of Winograd's algorithm, measured on x86, two threads: `weight` per transformed weight, `value` per transformed
 * input or output. With AVX-512 a value costs half as much again; with AVX2, where the plain operator is slow, a third.
 */
const COSTS: Readonly<Record<WinogradForm, Readonly<Record<Direction, { weight: number; value: number }>>>> = {
  tiles: { forward: { weight: 25, value: 60 }, gradient: { weight: 45, value: 50 } },
  whole: { forward: { weight: 20, value: 1.5 }, gradient: { weight: 20, value: 1.5 } },
};
/** An element that is copied to concatenate two images, or to split their results. */
const MOVING = 120;
/** Columns that a matrix product computes at once: fewer tiles take as long. */
const COLUMNS = 16;
/** Tiles that could be transformed in the time that every channel of every image takes in addition. */
const START = 22;
/** Tiles of the largest image that is transformed whole. */
const WHOLE_TILES = 4;

/**
 * Transformed weights that exist at a time, in elements: 20 MB. They come from a cache when they are multiplied; larger
 * blocks fit worse into ONNX Runtime's arena, and smaller ones make a graph that takes longer to load.
 */
export const BLOCK_ELEMENTS = 5_000_000;

/**
 * The form of Winograd's algorithm that is faster than the plain operator, if one is.
 *
 * @param image - `[B, C, H, W]`, the convolution's input or its output's gradient.
 * @param weight - `[Cout, Cin, 3, 3]`.
 */
export function chooseForm(
  [batch, , height, width]: readonly number[],
  weight: readonly number[],
  direction: Direction,
): WinogradForm | undefined {
  const pairs = weight[0]! * weight[1]!;
  const tiles = tilesOf(height!) * tilesOf(width!);
  const operator = direction === "forward" ? 1 : Math.min(TRANSPOSED, flippedCost(batch! * height! * width!));
  const plain = operator * KERNEL ** 2 * batch! * height! * width! * pairs;
  const products = Math.ceil((batch! * tiles) / COLUMNS) * COLUMNS * pairs;
  const [made, read] = direction === "forward" ? [weight[0]!, weight[1]!] : [weight[1]!, weight[0]!];
  const cost = (form: WinogradForm, values: number): number =>
    PRODUCTS * (products + COSTS[form][direction].weight * pairs + COSTS[form][direction].value * values);
  if (tiles <= WHOLE_TILES && PRODUCTS * pairs <= BLOCK_ELEMENTS) {
    if (cost("whole", batch! * tiles * height! * width! * (read + made)) < plain) return "whole";
  }
  return cost("tiles", batch! * ((tiles + START) * read + tiles * made)) < plain ? "tiles" : undefined;
}

/** A multiply-add of the plain operator with a flipped weight. @param pixels - Of all samples. */
const flippedCost = (pixels: number): number => 1 + FLIPPING / pixels;

/**
 * Whether the gradient of a convolution of stride 1 is made by the plain operator with a flipped weight rather than by
 * ConvTranspose.
 *
 * @param gradient - `[B, Cout, H, W]`, the output's gradient.
 */
export function isFlippingWorthwhile([batch, , height, width]: readonly number[]): boolean {
  return flippedCost(batch! * height! * width!) < TRANSPOSED;
}

/**
 * Whether two convolutions of images of one shape with the same weight should share its transformation: where that costs
 * more than to concatenate both images and to split their results.
 */
export function isSharingWorthwhile(image: readonly number[], weight: readonly number[]): boolean {
  const [batch, channels, height, width] = image as [number, number, number, number];
  if (chooseForm([2 * batch, channels, height, width], weight, "forward") !== "tiles") return false;
  const moved = 2 * batch * height * width * (channels + weight[0]!);
  return COSTS.tiles.forward.weight * PRODUCTS * weight[0]! * channels > MOVING * moved;
}
