// The matrices of Winograd's F(4×4, 3×3): tiles of 4×4 outputs from patches of 6×6 inputs with 36 products.

import { tensor } from "../../tensor/tensor.js";
import { emitMatMul, type LoweringContext, reshapedName } from "../lowering-context.js";

/** Side of a tile of outputs; of the input patch that it depends on; of the kernel. */
export const TILE = 4;
export const PATCH = 6;
export const KERNEL = 3;
/** Products per tile and pair of channels, where the plain sum takes TILE² · KERNEL² = 144. */
export const PRODUCTS = PATCH * PATCH;

/** How many tiles cover `size` pixels of one axis. */
export const tilesOf = (size: number): number => Math.ceil(size / TILE);

/** Finite interpolation points; the sixth is infinity. With these the error is under twice that of the plain sum. */
const POINTS = [0, Math.SQRT1_2, -Math.SQRT1_2, Math.SQRT2, -Math.SQRT2];

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

/** Bᵀ d B of a patch: one kernel per product, `[PRODUCTS, 1, PATCH, PATCH]`. */
export const IMAGE_KERNELS = tensor(kroneckerSquare(TRANSFORMS.image), [PRODUCTS, 1, PATCH, PATCH]);
/** G g Gᵀ of a kernel: `[PRODUCTS, KERNEL²]`. */
const KERNEL_MATRIX = tensor(kroneckerSquare(TRANSFORMS.kernel), [PRODUCTS, KERNEL ** 2]);
/** For kernels flipped along both axes: the nine taps of each row in reverse. */
const FLIPPED_KERNEL_MATRIX = tensor(
  KERNEL_MATRIX.data.map((_, i, all) => all[i + KERNEL ** 2 - 1 - 2 * (i % KERNEL ** 2)]!),
  KERNEL_MATRIX.shape,
);
/** Aᵀ m A of a tile's products: `[TILE², PRODUCTS]`. */
export const TILE_MATRIX = tensor(kroneckerSquare(TRANSFORMS.tile), [TILE * TILE, PRODUCTS]);

type Matrix = { name: string; rank: number };

/**
 * G g Gᵀ of kernels `[out · Cin, 9]`, flipped along both axes if asked: `[PRODUCTS, out, Cin]`, after an axis of 1 for products with
 * every sample of a batch.
 */
export function transformWeight(
  context: LoweringContext,
  kernels: string,
  channels: readonly [out: number, channels: number],
  options: { flipped: boolean; perSample?: boolean },
): string {
  const { builder } = context;
  const values = options.flipped ? FLIPPED_KERNEL_MATRIX : KERNEL_MATRIX;
  const constant = builder.constant(values, options.flipped ? "winograd flipped kernel" : "winograd kernel");
  // Else the products' shapes were known: see hidesShapes of the builder.
  const matrix = reshapedName(context, constant, values.shape);
  const [left, right] = [matrix, kernels].map((name) => ({ name, rank: 2 })) as [Matrix, Matrix];
  const output = builder.fresh("winograd_weight");
  const transformed = emitMatMul(context, left, right, { transposeB: true, output });
  return reshapedName(context, transformed, [...(options.perSample ? [1] : []), PRODUCTS, ...channels]);
}
