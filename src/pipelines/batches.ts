// Rows of batched float32 tensors: repeating, joining and taking them. A row is everything under the first dimension.

import { sizeOf, Tensor } from "../tensor/tensor.js";

/** Each row `times` times in place, so that a row's copies are neighbours. */
export function repeatRows(batch: Tensor<"float32">, times: number): Tensor<"float32"> {
  if (times === 1) return batch;
  return concatRows(Array.from(rowsOf(batch)).flatMap((row) => Array<Tensor<"float32">>(times).fill(row)));
}

/** Batches one after the other; all of one row shape. */
export function concatRows(batches: readonly Tensor<"float32">[]): Tensor<"float32"> {
  const data = new Float32Array(batches.reduce((size, batch) => size + batch.size, 0));
  let offset = 0;
  let rows = 0;
  for (const batch of batches) {
    data.set(batch.data, offset);
    offset += batch.size;
    rows += batch.shape[0]!;
  }
  return new Tensor("float32", [rows, ...batches[0]!.shape.slice(1)], data);
}

/** Rows `from` up to, not including, `to`; shares the batch's memory. */
export function sliceRows(batch: Tensor<"float32">, from: number, to: number): Tensor<"float32"> {
  const shape = batch.shape.slice(1);
  const stride = sizeOf(shape);
  return new Tensor("float32", [to - from, ...shape], batch.data.subarray(from * stride, to * stride));
}

/** Every row as a batch of one; shares the batch's memory. */
export function* rowsOf(batch: Tensor<"float32">): Iterable<Tensor<"float32">> {
  for (let row = 0; row < batch.shape[0]!; row++) yield sliceRows(batch, row, row + 1);
}

/** The last dimensions of two tensors joined; all others are the same. */
export function concatFeatures(a: Tensor<"float32">, b: Tensor<"float32">): Tensor<"float32"> {
  const [left, right] = [a.shape.at(-1)!, b.shape.at(-1)!];
  const data = new Float32Array(a.size + b.size);
  for (let row = 0; row < a.size / left; row++) {
    data.set(a.data.subarray(row * left, (row + 1) * left), row * (left + right));
    data.set(b.data.subarray(row * right, (row + 1) * right), row * (left + right) + left);
  }
  return new Tensor("float32", [...a.shape.slice(0, -1), left + right], data);
}
