// 3×3 convolutions of stride 1 by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications. For the
// CPU, out of standard matrix products; which convolutions gain by it is estimated here too.

import type { Node, Value } from "../../graph/graph.js";
import type { ConvolutionAttributes } from "../../graph/operators.js";
import { cutAxis, emit, type LoweringContext, reshapedName, rowsOf, type Target } from "../lowering-context.js";
import { BLOCK_ELEMENTS, chooseForm, isSharingWorthwhile } from "./convolution-costs.js";
import { int8Of } from "./int8-products.js";
import { IMAGE_KERNELS, KERNEL, PRODUCTS, TILE, TILE_MATRIX, tilesOf, transformWeight } from "./winograd-transforms.js";
import { wholeImageConv, wholeImageInputGradient } from "./winograd-whole.js";

function isPlain3x3(weight: Value, { stride, padding }: ConvolutionAttributes): boolean {
  return (
    stride === 1 && padding.every((side) => side === 1) && weight.shape[2] === KERNEL && weight.shape[3] === KERNEL
  );
}

/**
 * y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A per tile, summed over channels by PRODUCTS matrix products.
 *
 * Writes nothing where the plain operator is faster.
 *
 * @returns The name of the result without bias, `[B, Cout, H, W]`, or undefined.
 * @see Lavin & Gray 2015, arXiv:1509.09308
 */
export function winogradConv(node: Node<"Conv">, context: LoweringContext, output?: string): string | undefined {
  const [x, weight] = node.inputs as [Value, Value];
  if (context.target !== "cpu" || !isPlain3x3(weight, node.attributes)) return undefined;
  const form = chooseForm(x.shape, weight.shape, "forward");
  if (form === undefined) return undefined;
  if (form === "whole") return wholeImageConv(context, x, weight, output);
  return convolve(context, transformImage(context, [x]), weight, output);
}

/** Whether two convolutions with the same weight, of which `node` is one, should share its transformation. */
export function shareWinograd(node: Node<"Conv">, target: Target): boolean {
  const [x, weight] = node.inputs as [Value, Value];
  if (int8Of({ target }, weight)) return false;
  return target === "cpu" && isPlain3x3(weight, node.attributes) && isSharingWorthwhile(x.shape, weight.shape);
}

/** Two convolutions with one weight: `[2·B, Cout, H, W]` without bias, the first one's samples first. */
export function winogradConvPair(
  [first, second]: readonly [Node<"Conv">, Node<"Conv">],
  context: LoweringContext,
): string {
  return convolve(context, transformImage(context, [first.inputs[0]!, second.inputs[0]!]), first.inputs[1]!);
}

function convolve(context: LoweringContext, image: TransformedImage, weight: Value, output?: string): string {
  const [out, channels] = weight.shape as [number, number, number, number];
  const step = stepOf(out, channels);
  const parts: string[] = [];
  for (let start = 0; start < out; start += step) {
    const end = Math.min(out, start + step);
    const kernels = rowsOf(context, weight, start, end, [(end - start) * channels, KERNEL ** 2]);
    parts.push(tilesMade(context, image, kernels, [end - start, channels], false));
  }
  return assembleTiles(context, image, parts, out, output);
}

/**
 * The adjoint in the image: a convolution of dy with the kernels flipped along both axes and input and output channels exchanged.
 *
 * @returns The name of the result, `[B, Cin, H, W]`, or undefined where the plain operator is faster.
 */
export function winogradInputGradient(
  node: Node<"ConvInputGradient">,
  context: LoweringContext,
  output: string,
): string | undefined {
  const [dy, weight] = node.inputs as [Value, Value];
  if (context.target !== "cpu" || !isPlain3x3(weight, node.attributes)) return undefined;
  const form = chooseForm(dy.shape, weight.shape, "gradient");
  if (form === undefined) return undefined;
  if (form === "whole") return wholeImageInputGradient(context, dy, weight, output);
  const image = transformImage(context, [dy]);
  const [out, channels] = weight.shape as [number, number];
  const tiles = tilesOf(image.height) * tilesOf(image.width) * dy.shape[0]!;
  // By channels made, a block copies its share of the weight; by channels read, of dy's transform, and adds one more term.
  if (KERNEL ** 2 * out * channels < PRODUCTS * tiles * (out + channels)) {
    return gradientByChannelsMade(context, image, weight, output);
  }
  return gradientByChannelsRead(context, image, weight, output);
}

function gradientByChannelsMade(
  context: LoweringContext,
  image: TransformedImage,
  weight: Value,
  output: string,
): string {
  const [out, channels] = weight.shape as [number, number];
  const step = stepOf(channels, out);
  const parts: string[] = [];
  for (let start = 0; start < channels; start += step) {
    const end = Math.min(channels, start + step);
    const isWhole = end - start === channels;
    const kernels = isWhole
      ? rowsOf(context, weight, 0, out, [out * channels, KERNEL ** 2])
      : reshapedName(context, cutAxis(context, context.name(weight), 1, start, end), [
          out * (end - start),
          KERNEL ** 2,
        ]);
    parts.push(tilesMade(context, image, kernels, [out, end - start], true));
  }
  return assembleTiles(context, image, parts, channels, output);
}

function gradientByChannelsRead(
  context: LoweringContext,
  image: TransformedImage,
  weight: Value,
  output: string,
): string {
  const [out, channels] = weight.shape as [number, number];
  const step = stepOf(out, channels);
  const parts: string[] = [];
  for (let start = 0; start < out; start += step) {
    const end = Math.min(out, start + step);
    const axis = image.batched === 1 ? 0 : 1;
    const rows = { ...image, name: end - start === out ? image.name : cutAxis(context, image.name, axis, start, end) };
    const kernels = rowsOf(context, weight, start, end, [(end - start) * channels, KERNEL ** 2]);
    parts.push(tilesMade(context, rows, kernels, [end - start, channels], true));
  }
  // The sums come after all terms in the file, so that each is run as soon as its second term exists.
  const sum = parts.reduce((a, b) => emit(context, "Add", [a, b]));
  return assembleTiles(context, image, [sum], channels, output);
}

/** The tiles that kernels `[out · Cin, 9]` make of an image; flipped ones of its gradient, which has `out` channels. */
function tilesMade(
  context: LoweringContext,
  image: TransformedImage,
  kernels: string,
  channels: readonly [out: number, channels: number],
  flipped: boolean,
): string {
  const transformed = transformWeight(context, kernels, channels, { flipped, perSample: image.perSample > 1 });
  return transformTiles(context, image, multiply(context, transformed, image, flipped), channels[flipped ? 1 : 0]);
}

/** How many of `count` channels a block takes, with `others` channels on the weight's other side; blocks are about equal. */
function stepOf(count: number, others: number): number {
  const most = Math.max(1, Math.floor(BLOCK_ELEMENTS / (PRODUCTS * others)));
  return Math.ceil(count / Math.ceil(count / most));
}

/** Tiles of an image whose products are wide enough alone; those of smaller ones are put side by side. */
const WIDE = 64;

/**
 * A transformed image: PRODUCTS values for each of T tiles and each channel. Products are made per sample,
 * or over the tiles of all samples: of `perSample` and `batched`, one is the batch size and the other 1.
 */
interface TransformedImage {
  /** `[C, perSample, PRODUCTS, T]`, without the second axis where that is 1; or `[PRODUCTS, C, batched · T]`. */
  name: string;
  perSample: number;
  batched: number;
  height: number;
  width: number;
}

/**
 * Bᵀ d B of every patch of the image padded by one: a convolution of each channel alone, one kernel per product. Several
 * images of one shape become one batch.
 */
function transformImage(context: LoweringContext, images: readonly Value[]): TransformedImage {
  const { builder } = context;
  const [samples, channels, height, width] = images[0]!.shape as [number, number, number, number];
  const batch = samples * images.length;
  const [rows, columns] = [tilesOf(height), tilesOf(width)];
  const tiles = rows * columns;
  const isBatched = batch > 1 && tiles < WIDE;
  const single = isBatched ? concatenateBatch(context, images) : channelsFirst(context, images);
  const shaped = reshapedName(context, single, [batch * channels, 1, height, width]);
  const patches = emit(context, "Conv", [shaped, builder.constant(IMAGE_KERNELS, "winograd image")], {
    strides: { ints: [TILE, TILE] },
    pads: { ints: [1, 1, 1 + rows * TILE - height, 1 + columns * TILE - width] },
  });
  if (!isBatched) {
    const name = reshapedName(context, patches, [channels, ...(batch === 1 ? [] : [batch]), PRODUCTS, tiles]);
    return { name, perSample: batch, batched: 1, height, width };
  }
  const split = reshapedName(context, patches, [batch, channels, PRODUCTS, tiles]);
  const transposed = emit(context, "Transpose", [split], { perm: { ints: [2, 1, 0, 3] } });
  const name = reshapedName(context, transposed, [PRODUCTS, channels, batch * tiles]);
  return { name, perSample: 1, batched: batch, height, width };
}

/** All samples of all images, one after the other. */
function concatenateBatch(context: LoweringContext, images: readonly Value[]): string {
  const names = images.map(context.name);
  return names.length === 1 ? names[0]! : emit(context, "Concat", names, { axis: { int: 0 } });
}

/** `[C, B, H, W]` of all images, in some shape with that many elements. */
function channelsFirst(context: LoweringContext, images: readonly Value[]): string {
  const [samples, channels, height, width] = images[0]!.shape as [number, number, number, number];
  if (samples > 1) {
    return emit(context, "Transpose", [concatenateBatch(context, images)], { perm: { ints: [1, 0, 2, 3] } });
  }
  const names = images.map(context.name);
  if (names.length === 1) return names[0]!;
  const columns = names.map((name) => reshapedName(context, name, [channels, 1, height, width]));
  return emit(context, "Concat", columns, { axis: { int: 1 } });
}

/** Sums over channels, one matrix product per product of the tiles: `[perSample, PRODUCTS, channels made, batched · T]`. */
function multiply(
  context: LoweringContext,
  kernels: string,
  { name, batched }: TransformedImage,
  transpose: boolean,
): string {
  const attributes = { transA: { int: +transpose }, transBatchB: { int: +(batched === 1) } };
  return emit(context, "FusedMatMul", [kernels, name], attributes, "com.microsoft");
}

/** Aᵀ m A of every tile: `[perSample, TILE², channels · batched · T]`. */
function transformTiles(
  context: LoweringContext,
  { perSample, batched, height, width }: TransformedImage,
  products: string,
  channels: number,
): string {
  const columns = channels * batched * tilesOf(height) * tilesOf(width);
  const flat = reshapedName(context, products, [perSample, PRODUCTS, columns]);
  return emit(context, "MatMul", [context.builder.constant(TILE_MATRIX, "winograd tile"), flat]);
}

/** Puts the tiles of all channels side by side and cuts them to the image's size: `[B, channels, H, W]`. */
function assembleTiles(
  context: LoweringContext,
  { perSample, batched, height, width }: TransformedImage,
  parts: readonly string[],
  channels: number,
  output: string | undefined,
): string {
  const { builder } = context;
  const [rows, columns] = [tilesOf(height), tilesOf(width)];
  const tiles = parts.length === 1 ? parts[0]! : emit(context, "Concat", parts, { axis: { int: 2 } });
  const blocks = reshapedName(context, tiles, [perSample, TILE * TILE * channels * batched, rows, columns]);
  const isWhole = rows * TILE === height && columns * TILE === width;
  const result = output ?? builder.fresh("winograd");
  const last = (isLast: boolean): string[] => [isLast ? result : builder.fresh("winograd")];
  let [image] = builder.emit("DepthToSpace", [blocks], {
    attributes: { blocksize: { int: TILE } },
    outputs: last(isWhole && batched === 1),
  }) as [string];
  if (!isWhole) {
    const bounds = [
      [0, 0],
      [height, width],
      [2, 3],
    ].map((values) => builder.ints(values));
    [image] = builder.emit("Slice", [image, ...bounds], { outputs: last(batched === 1) }) as [string];
  }
  if (batched === 1) return image;
  const split = reshapedName(context, image, [channels, batched, height, width]);
  const attributes = { perm: { ints: [1, 0, 2, 3] } };
  return builder.emit("Transpose", [split], { attributes, outputs: [result] })[0]!;
}
