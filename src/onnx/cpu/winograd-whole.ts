// Winograd's algorithm for batches of small images: one matrix takes all pixels of an image to the transformed values of all
// its tiles, so that everything is a matrix product and nothing needs to be rearranged.

import type { Value } from "../../graph/graph.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { emit, emitMatMul, type LoweringContext, reshaped, reshapedName, rowsOf } from "../lowering-context.js";
import {
  IMAGE_KERNELS,
  KERNEL,
  PATCH,
  PRODUCTS,
  TILE,
  TILE_MATRIX,
  tilesOf,
  transformWeight,
} from "./winograd-transforms.js";

/** @returns The name of the result without bias, `[B, Cout, H, W]`. */
export function wholeImageConv(context: LoweringContext, x: Value, weight: Value, output?: string): string {
  return convolve(context, x, weight, "forward", output);
}

/** @returns The name of the gradient of the image, `[B, Cin, H, W]`. */
export function wholeImageInputGradient(context: LoweringContext, dy: Value, weight: Value, output: string): string {
  return convolve(context, dy, weight, "gradient", output);
}

function convolve(
  context: LoweringContext,
  image: Value,
  weight: Value,
  direction: "forward" | "gradient",
  output = context.builder.fresh("winograd"),
): string {
  const { builder } = context;
  const [batch, read, height, width] = image.shape as [number, number, number, number];
  const [out, channels] = weight.shape as [number, number];
  const isForward = direction === "forward";
  const made = isForward ? out : channels;
  const pixels = height * width;
  const tiles = tilesOf(height) * tilesOf(width);
  const size = `${height}×${width}`;
  const matrices = {
    image: builder.constant(imageMatrix(height, width), `winograd image ${size}`),
    tiles: builder.constant(tileMatrix(height, width), `winograd tiles ${size}`),
  };
  const kernels = rowsOf(context, weight, 0, out, [out * channels, KERNEL ** 2]);
  const transformed = transformWeight(context, kernels, [out, channels], { flipped: !isForward });
  const rows = reshaped(context, image, [batch * read, pixels]);
  // [PRODUCTS·T, B·C], of which each product's rows are the tiles of all samples.
  const values = emitMatMul(context, matrix(matrices.image, 2), matrix(rows, 2), { transposeB: true });
  const left = reshapedName(context, values, [PRODUCTS, tiles * batch, read]);
  const sums = emitMatMul(context, matrix(left, 3), matrix(transformed, 3), { transposeB: isForward });
  const right = reshapedName(context, sums, [PRODUCTS * tiles, batch * made]);
  const result = emit(context, "Gemm", [right, matrices.tiles], { transA: { int: 1 } });
  return builder.emit("Reshape", [result, builder.shape([batch, made, height, width])], { outputs: [output] })[0]!;
}

const matrix = (name: string, rank: number) => ({ name, rank });

/** Bᵀ d B of all patches of an image padded by one: `[PRODUCTS · T, H · W]`. */
const imageMatrix = (height: number, width: number): Tensor =>
  perTile(
    [height, width],
    { side: PATCH, margin: 1 },
    (product, y, x) => (product * PATCH + y) * PATCH + x,
    IMAGE_KERNELS,
  );

/** Which pixels each product of each tile goes to, Aᵀ m A transposed: `[PRODUCTS · T, H · W]`. */
const tileMatrix = (height: number, width: number): Tensor =>
  perTile(
    [height, width],
    { side: TILE, margin: 0 },
    (product, y, x) => (y * TILE + x) * PRODUCTS + product,
    TILE_MATRIX,
  );

/** A row for every product of every tile, with the entry `at` a position wherever the tile's window lies over a pixel. */
function perTile(
  [height, width]: readonly [number, number],
  window: { side: number; margin: number },
  at: (product: number, y: number, x: number) => number,
  entries: Tensor<"float32">,
): Tensor {
  const [rows, columns] = [tilesOf(height), tilesOf(width)];
  const data = new Float32Array(PRODUCTS * rows * columns * height * width);
  const isInside = (side: number) => side >= 0 && side < window.side;
  let next = 0;
  for (let product = 0; product < PRODUCTS; product++) {
    for (let tile = 0; tile < rows * columns; tile++) {
      const top = Math.floor(tile / columns) * TILE - window.margin;
      const left = (tile % columns) * TILE - window.margin;
      for (let pixel = 0; pixel < height * width; pixel++) {
        const [y, x] = [Math.floor(pixel / width) - top, (pixel % width) - left];
        data[next++] = isInside(y) && isInside(x) ? entries.data[at(product, y, x)]! : 0;
      }
    }
  }
  return tensor(data, [PRODUCTS * rows * columns, height * width]);
}
