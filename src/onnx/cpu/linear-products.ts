// Matrix products by a weight in forms that ONNX Runtime's CPU kernels compute faster than the plain one.
//
// Those read a left factor as it lies, twelve rows at a time, and copy a right factor into panels first.

import type { Value } from "../../graph/graph.js";
import { emit, emitMatMul, type LoweringContext, produceReshaped, reshaped } from "../lowering-context.js";

/** Float32 values in 4096 bytes: on x86 and most ARM, rows so far apart begin in the same set of the first-level cache. */
const SAME_SET = 1024;
/** Products of fewer rows or columns do not pay for copying the left factor and for adding the parts. */
const FEWEST_ROWS = 32;
const FEWEST_COLUMNS = 256;
/** Parts have at least this many terms. */
const FEWEST_TERMS = 1024;
/** Of so few rows, copying the weight into panels costs more than transposing the result. */
const FEW_ROWS = { least: 12, most: 64 };
/** Elements of a weight that pays for transposing the result. */
const LARGE_WEIGHT = 1 << 20;

/**
 * Whether the rows of a matrix share one set of the first-level cache.
 *
 * A set has eight places: of twelve rows that share one, each pushes the others out before their lines are used up, and a
 * product with such a left factor takes up to a third longer.
 *
 * @param columns - The length of a row, float32.
 */
export const fallsOnOneSet = (columns: number): boolean => columns % SAME_SET === 0;

/**
 * x · w, or x · wᵀ, plus bias, in a faster form than one product, where there is one.
 *
 * @param x - `[…, K]`.
 * @param weight - `[K, N]`, or `[N, K]` where `transposeB`.
 * @param bias - `[N]`.
 * @param output - `[…, N]`.
 * @returns Whether the output was made; where not, nothing was written.
 */
export function fasterProduct(
  context: LoweringContext,
  [x, weight, bias]: readonly [x: Value, weight: Value, bias?: Value],
  output: Value,
  { transposeB }: { transposeB: boolean },
): boolean {
  if (context.target !== "cpu" || weight.rank !== 2) return false;
  const terms = x.shape.at(-1)!;
  const rows = x.size / terms;
  const columns = output.shape.at(-1)!;
  const parts = partsOf(rows, terms, columns);
  let product: string;
  if (transposeB && isTransposedFaster(rows, weight)) product = transposedProduct(context, x, weight, [rows, terms]);
  else if (parts > 1) product = splitProduct(context, [x, weight], [rows, columns], { parts, transposeB });
  else return false;
  const biased = bias ? emit(context, "Add", [product, context.name(bias)]) : product;
  produceReshaped(context, output, biased);
  return true;
}

const isTransposedFaster = (rows: number, weight: Value): boolean =>
  rows >= FEW_ROWS.least && rows <= FEW_ROWS.most && weight.size >= LARGE_WEIGHT;

/** (w · xᵀ)ᵀ: `[rows, N]`. */
function transposedProduct(
  context: LoweringContext,
  x: Value,
  weight: Value,
  [rows, terms]: readonly [number, number],
): string {
  const right = { name: reshaped(context, x, [rows, terms]), rank: 2 };
  const product = emitMatMul(context, { name: context.name(weight), rank: 2 }, right, { transposeB: true });
  return emit(context, "Transpose", [product], { perm: { ints: [1, 0] } });
}

/** In how many parts a sum over `terms` is made, each with rows that fall on several sets; 1 where splitting does not pay. */
function partsOf(rows: number, terms: number, columns: number): number {
  if (rows < FEWEST_ROWS || columns < FEWEST_COLUMNS) return 1;
  let parts = 1;
  while (fallsOnOneSet(terms / parts)) parts *= 2;
  return terms / parts < FEWEST_TERMS ? 1 : parts;
}

/** The sum of products over parts of their terms, where x's rows fall on one set of the cache: `[1, rows, columns]`. */
function splitProduct(
  context: LoweringContext,
  [x, weight]: readonly [Value, Value],
  [rows, columns]: readonly [number, number],
  { parts, transposeB }: { parts: number; transposeB: boolean },
): string {
  const { builder } = context;
  const terms = x.size / rows / parts;
  const divided = reshaped(context, x, [rows, parts, terms]);
  const xParts = emit(context, "Transpose", [divided], { perm: { ints: [1, 0, 2] } });
  // Parts of [N, K] lie beside each other: the product takes [N, parts, K / parts] with its first two axes exchanged.
  const weights = reshaped(context, weight, transposeB ? [columns, parts, terms] : [parts, terms, columns]);
  const attributes = { transB: { int: +transposeB }, transBatchB: { int: +transposeB } };
  const products = emit(context, "FusedMatMul", [xParts, weights], attributes, "com.microsoft");
  const outputs = Array.from({ length: parts }, () => builder.fresh("part"));
  builder.emit("Split", [products, builder.ints(outputs.map(() => 1))], { outputs });
  return outputs.reduce((a, b) => emit(context, "Add", [a, b]));
}
