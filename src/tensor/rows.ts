// Rows of batched tensors: taking, repeating and joining them. A row is everything under the first dimension.

import { ShapeError } from "../errors.js";
import { type DType, sizeOf, Tensor } from "./tensor.js";

/** Typed arrays that hold a tensor's values, as far as rows need them. */
type RowData = {
  length: number;
  set(source: never, offset: number): void;
  subarray(from: number, to: number): RowData;
};

/** Rows `from` up to, not including, `to`; shares the batch's memory. */
export function sliceRows<D extends DType>(batch: Tensor<D>, from: number, to: number): Tensor<D> {
  const shape = batch.shape.slice(1);
  const stride = sizeOf(shape);
  const data = (batch.data as unknown as RowData).subarray(from * stride, to * stride);
  return new Tensor(batch.dtype, [to - from, ...shape], data as never);
}

/** Every row as a batch of one; shares the batch's memory. */
export function* rowsOf<D extends DType>(batch: Tensor<D>): Iterable<Tensor<D>> {
  for (let row = 0; row < batch.shape[0]!; row++) yield sliceRows(batch, row, row + 1);
}

/**
 * Batches one after the other.
 *
 * @throws {ShapeError} If there is none, or they differ in dtype or in the shape of a row.
 */
export function concatRows<D extends DType>(batches: readonly Tensor<D>[]): Tensor<D> {
  const [first] = batches;
  if (!first) throw new ShapeError("concatRows: needs at least one batch.");
  const rowShape = first.shape.slice(1);
  for (const { dtype, shape } of batches) {
    if (dtype !== first.dtype || shape.slice(1).join() !== rowShape.join()) {
      throw new ShapeError(
        `concatRows: batches must have one dtype and one row shape; got ${first.dtype}[${first.shape.join(",")}] and ` +
          `${dtype}[${shape.join(",")}].`,
      );
    }
  }
  const rows = batches.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const data = emptyLike(first, rows * sizeOf(rowShape));
  let offset = 0;
  for (const batch of batches) {
    data.set(batch.data as never, offset);
    offset += batch.size;
  }
  return new Tensor(first.dtype, [rows, ...rowShape], data as never);
}

/** The given rows, in that order; a copy. */
export function takeRows<D extends DType>(batch: Tensor<D>, rows: readonly number[]): Tensor<D> {
  const rowShape = batch.shape.slice(1);
  const stride = sizeOf(rowShape);
  const data = emptyLike(batch, rows.length * stride);
  const source = batch.data as unknown as RowData;
  rows.forEach((row, i) => {
    data.set(source.subarray(row * stride, (row + 1) * stride) as never, i * stride);
  });
  return new Tensor(batch.dtype, [rows.length, ...rowShape], data as never);
}

/** Each row `times` times in place, so that a row's copies are neighbours. */
export function repeatRows<D extends DType>(batch: Tensor<D>, times: number): Tensor<D> {
  if (times === 1) return batch;
  return takeRows(
    batch,
    Array.from({ length: batch.shape[0]! * times }, (_, i) => Math.floor(i / times)),
  );
}

function emptyLike(batch: Tensor, length: number): RowData {
  const Data = batch.data.constructor as new (length: number) => RowData;
  return new Data(length);
}

/** The mean over the rows of `[rows, columns]`. */
export function meanRows({ data, shape }: Tensor<"float32">): number[] {
  const [rows, columns] = shape as [number, number];
  return Array.from({ length: columns }, (_, column) => {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += data[row * columns + column]!;
    return sum / rows;
  });
}
