// 3×3 convolutions of stride 1 by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications. For the
// CPU, out of standard matrix products; which convolutions gain by it is estimated here too.

import { tensor } from "../../tensor/tensor.js";
import type { Node, Value } from "../graph.js";
import type { ConvolutionAttributes } from "../operators.js";
import { emit, emitMatMul, type LoweringContext, reshapedName, rowsOf, type Target } from "./lowering-context.js";

/** Side of a tile of outputs; of the input patch that it depends on; of the kernel. */
const TILE = 4;
const PATCH = 6;
const KERNEL = 3;
/** Products per tile and pair of channels, where the plain sum takes TILE² · KERNEL² = 144. */
const PRODUCTS = PATCH * PATCH;

/** Finite interpolation points; the sixth is infinity. With these the error is under twice that of the plain sum. */
const POINTS = [0, Math.SQRT1_2, -Math.SQRT1_2, Math.SQRT2, -Math.SQRT2];

/**
 * What the parts cost, in multiply-adds of a convolution: measured on x86 with AVX-512, two threads. `plain` per
 * multiply-add of the plain operator, `weight` per transformed weight, `value` per transformed input or output.
 */
const COSTS = {
  forward: { plain: 1, weight: 25, value: 90 },
  gradient: { plain: 1.4, weight: 45, value: 70 },
};

/** The same for an element that is copied to join two images, or to part their results. */
const MOVING = 120;

/**
 * Transformed weights that exist at a time, in elements: 20 MB. They come from a cache when they are multiplied; larger
 * blocks fit worse into ONNX Runtime's arena, and smaller ones make a graph that takes longer to load.
 */
const BLOCK_ELEMENTS = 5_000_000;

/** Columns that a matrix product computes at once: fewer tiles take as long. */
const COLUMNS = 16;
/** Tiles that could be transformed in the time that every channel of every image takes besides. */
const START = 22;

/** Whether a convolution is worth transforming. The image is `[B, C, H, W]`. */
function isWorthwhile(
  [batch, , height, width]: readonly number[],
  weight: readonly number[],
  costs: (typeof COSTS)["forward"],
): boolean {
  const [out, channels] = weight as [number, number];
  const tiles = tilesOf(height!) * tilesOf(width!);
  const plain = costs.plain * KERNEL ** 2 * batch! * height! * width! * out * channels;
  const products = batch! * Math.ceil(tiles / COLUMNS) * COLUMNS * out * channels;
  const values = batch! * ((tiles + START) * channels + tiles * out);
  return PRODUCTS * (products + costs.weight * out * channels + costs.value * values) < plain;
}

const tilesOf = (size: number): number => Math.ceil(size / TILE);

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
  if (!isWorthwhile(x.shape, weight.shape, COSTS.forward)) return undefined;
  return convolve(context, transformImage(context, [x]), weight, output);
}

/**
 * Whether two convolutions with the same weight should share its transformation: where that costs more than to put both
 * images together and their results apart.
 */
export function shareWinograd(node: Node<"Conv">, target: Target): boolean {
  const [x, weight] = node.inputs as [Value, Value];
  if (target !== "cpu" || !isPlain3x3(weight, node.attributes)) return false;
  const [batch, , height, width] = x.shape as [number, number, number, number];
  if (!isWorthwhile([2 * batch, 0, height, width], weight.shape, COSTS.forward)) return false;
  const [out, channels] = weight.shape as [number, number];
  const moved = 2 * batch * height * width * (channels + out);
  return COSTS.forward.weight * PRODUCTS * out * channels > MOVING * moved;
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
    const last = start === 0 && end === out ? output : undefined;
    const kernels = rowsOf(context, weight, start, end, [(end - start) * channels, KERNEL ** 2]);
    const transformed = transformWeight(context, kernels, [end - start, channels], image.rank, false);
    const tiles = transformTiles(context, image, multiply(context, transformed, image, false), end - start);
    parts.push(joinTiles(context, image, tiles, end - start, last));
  }
  if (parts.length === 1) return parts[0]!;
  const { builder } = context;
  return builder.emit("Concat", parts, {
    attributes: { axis: { int: 1 } },
    outputs: [output ?? builder.fresh("winograd")],
  })[0]!;
}

/**
 * The adjoint in the image: a convolution of dy with the kernels turned by 180° and input and output channels exchanged.
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
  if (!isWorthwhile(dy.shape, weight.shape, COSTS.gradient)) return undefined;
  const image = transformImage(context, [dy]);
  const [out, channels] = weight.shape as [number, number];
  const tiles = tilesOf(image.height) * tilesOf(image.width) * image.batch;
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
  const { builder } = context;
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
    const transformed = transformWeight(context, kernels, [out, end - start], image.rank, true);
    const tiles = transformTiles(context, image, multiply(context, transformed, image, true), end - start);
    parts.push(joinTiles(context, image, tiles, end - start, isWhole ? output : undefined));
  }
  if (parts.length === 1) return output;
  return builder.emit("Concat", parts, { attributes: { axis: { int: 1 } }, outputs: [output] })[0]!;
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
    const rows = { ...image, name: end - start === out ? image.name : cutAxis(context, image.name, 0, start, end) };
    const kernels = rowsOf(context, weight, start, end, [(end - start) * channels, KERNEL ** 2]);
    const transformed = transformWeight(context, kernels, [end - start, channels], image.rank, true);
    parts.push(transformTiles(context, image, multiply(context, transformed, rows, true), channels));
  }
  // The sums come after all terms in the file, so that each is run as soon as its second term exists.
  const sum = parts.reduce((a, b) => emit(context, "Add", [a, b]));
  return joinTiles(context, image, sum, channels, output);
}

/** How many of `count` channels a block takes, with `others` channels on the weight's other side; blocks are about equal. */
function stepOf(count: number, others: number): number {
  const most = Math.max(1, Math.floor(BLOCK_ELEMENTS / (PRODUCTS * others)));
  return Math.ceil(count / Math.ceil(count / most));
}

/** A transformed image: PRODUCTS values per tile and channel. */
interface TransformedImage {
  /** `[C, PRODUCTS, T]`, or `[C, B, PRODUCTS, T]` where the batch is larger than one. T tiles. */
  name: string;
  rank: 3 | 4;
  batch: number;
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
  const single = emit(context, "Reshape", [
    channelsFirst(context, images),
    builder.ints([channels * batch, 1, height, width]),
  ]);
  const kernels = builder.constant(IMAGE_KERNELS, "winograd image");
  const patches = emit(context, "Conv", [single, kernels], {
    strides: { ints: [TILE, TILE] },
    pads: { ints: [1, 1, 1 + rows * TILE - height, 1 + columns * TILE - width] },
  });
  const shape = [channels, ...(batch === 1 ? [] : [batch]), PRODUCTS, rows * columns];
  const name = emit(context, "Reshape", [patches, builder.ints(shape)]);
  return { name, rank: batch === 1 ? 3 : 4, batch, height, width };
}

/** `[C, B, H, W]` of all images, in some shape of so many elements. */
function channelsFirst(context: LoweringContext, images: readonly Value[]): string {
  const { builder } = context;
  const [samples, channels, height, width] = images[0]!.shape as [number, number, number, number];
  const names = images.map(context.name);
  if (samples === 1) {
    if (names.length === 1) return names[0]!;
    const shape = builder.ints([channels, 1, height, width]);
    const turned = names.map((name) => emit(context, "Reshape", [name, shape]));
    return emit(context, "Concat", turned, { axis: { int: 1 } });
  }
  const joined = names.length === 1 ? names[0]! : emit(context, "Concat", names, { axis: { int: 0 } });
  return emit(context, "Transpose", [joined], { perm: { ints: [1, 0, 2, 3] } });
}

/** G g Gᵀ of kernels `[out · Cin, 9]`, turned by 180° if asked: `[PRODUCTS, out, Cin]`. */
function transformWeight(
  context: LoweringContext,
  kernels: string,
  channels: readonly [out: number, channels: number],
  rank: 3 | 4,
  turned: boolean,
): string {
  const { builder } = context;
  const matrix = turned
    ? builder.constant(TURNED_KERNEL_MATRIX, "winograd turned kernel")
    : builder.constant(KERNEL_MATRIX, "winograd kernel");
  const transformed = emitMatMul(context, { name: matrix, rank: 2 }, { name: kernels, rank: 2 }, { transposeB: true });
  const shape = [...(rank === 3 ? [] : [1]), PRODUCTS, ...channels];
  return emit(context, "Reshape", [transformed, builder.ints(shape)]);
}

/** Sums over channels, one matrix product per product of the tiles: `[B, PRODUCTS, channels made, T]`. */
function multiply(context: LoweringContext, kernels: string, image: TransformedImage, transpose: boolean): string {
  const attributes = { transA: { int: +transpose }, transBatchB: { int: 1 } };
  return emit(context, "FusedMatMul", [kernels, image.name], attributes, "com.microsoft");
}

/** Aᵀ m A of every tile: `[B, TILE², channels · T]`. */
function transformTiles(
  context: LoweringContext,
  { batch, height, width }: TransformedImage,
  products: string,
  channels: number,
): string {
  const { builder } = context;
  const shape = [batch, PRODUCTS, channels * tilesOf(height) * tilesOf(width)];
  const flat = emit(context, "Reshape", [products, builder.ints(shape)]);
  const matrix = builder.constant(TILE_MATRIX, "winograd tile");
  return emit(context, "MatMul", [matrix, flat]);
}

/** Puts tiles side by side and cuts them to the image's size: `[B, channels, H, W]`. */
function joinTiles(
  context: LoweringContext,
  { batch, height, width }: TransformedImage,
  tiles: string,
  channels: number,
  output: string | undefined,
): string {
  const { builder } = context;
  const [rows, columns] = [tilesOf(height), tilesOf(width)];
  const blocks = emit(context, "Reshape", [tiles, builder.ints([batch, TILE * TILE * channels, rows, columns])]);
  const isWhole = rows * TILE === height && columns * TILE === width;
  const result = output ?? builder.fresh("winograd");
  const side = { attributes: { blocksize: { int: TILE } } };
  const [joined] = builder.emit("DepthToSpace", [blocks], { ...side, outputs: isWhole ? [result] : undefined });
  if (isWhole) return result;
  const bounds = [
    [0, 0],
    [height, width],
    [2, 3],
  ].map((values) => builder.ints(values));
  return builder.emit("Slice", [joined!, ...bounds], { outputs: [result] })[0]!;
}

function cutAxis(context: LoweringContext, name: string, axis: number, start: number, end: number): string {
  return emit(context, "Slice", [name, ...[start, end, axis].map((value) => context.builder.ints([value]))]);
}

/**
 * Aᵀ `[4, 6]`, G `[6, 3]` and Bᵀ `[6, 6]` of the Toom–Cook algorithm: both polynomials are evaluated at the points, and
 * the product is interpolated. Row i of A holds the powers of point i, row i of G the same over Π_{j≠i} (a_i − a_j), row
 * i of Bᵀ the coefficients of Π_{j≠i} (z − a_j); infinity takes the highest coefficient. Each row of G and Bᵀ is scaled
 * to equal lengths, by powers of two.
 */
const TRANSFORMS = (() => {
  const powers = (point: number, count: number) => Array.from({ length: count }, (_, power) => point ** power);
  const last = (count: number) => Array.from({ length: count }, (_, i) => (i === count - 1 ? 1 : 0));
  const withRoots = (roots: readonly number[]) => {
    let polynomial = [1];
    for (const root of roots) {
      const [raised, scaled] = [
        [0, ...polynomial],
        [...polynomial.map((value) => value * root), 0],
      ];
      polynomial = raised.map((value, i) => value - scaled[i]!);
    }
    return polynomial;
  };
  const others = (i: number) => POINTS.filter((_, j) => j !== i);
  const tile = [...POINTS.map((point) => powers(point, TILE)), last(TILE)];
  const kernel = POINTS.map((point, i) => {
    const scale = others(i).reduce((product, other) => product * (point - other), 1);
    return powers(point, KERNEL).map((value) => value / scale);
  });
  kernel.push(last(KERNEL));
  const image = POINTS.map((_, i) => [...withRoots(others(i)), 0]);
  image.push(withRoots(POINTS));
  kernel.forEach((row, i) => {
    const balance = 2 ** Math.round(Math.log2(Math.hypot(...image[i]!) / Math.hypot(...row)) / 2);
    kernel[i] = row.map((value) => value * balance);
    image[i] = image[i]!.map((value) => value / balance);
  });
  return { tile: tile[0]!.map((_, j) => tile.map((row) => row[j]!)), kernel, image };
})();

/** M ⊗ M: both axes of a patch at once. */
const kroneckerSquare = (matrix: readonly (readonly number[])[]): Float32Array =>
  Float32Array.from(matrix.flatMap((a) => matrix.flatMap((b) => a.flatMap((x) => b.map((y) => x * y)))));

const IMAGE_KERNELS = tensor(kroneckerSquare(TRANSFORMS.image), [PRODUCTS, 1, PATCH, PATCH]);
const KERNEL_MATRIX = tensor(kroneckerSquare(TRANSFORMS.kernel), [PRODUCTS, KERNEL ** 2]);
/** For kernels turned by 180°: the nine taps of each row in reverse. */
const TURNED_KERNEL_MATRIX = tensor(
  KERNEL_MATRIX.data.map((_, i, all) => all[i + KERNEL ** 2 - 1 - 2 * (i % KERNEL ** 2)]!),
  KERNEL_MATRIX.shape,
);
const TILE_MATRIX = tensor(kroneckerSquare(TRANSFORMS.tile), [TILE * TILE, PRODUCTS]);
