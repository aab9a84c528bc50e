// Weights of a file in other shapes and orders: split, put together, transposed. What can be is done without reading.

import { FormatError } from "../../errors.js";
import { asFloat32, SAFETENSORS_NAMES } from "../../storage/float-weights.js";
import { decodeSafetensorsEntry } from "../../storage/safetensors.js";
import { readFileAt } from "../../storage/storage.js";
import { fromBytes, Tensor } from "../../tensor/tensor.js";
import type { LoadedWeight } from "../loaded-weights.js";

/** Rows of two weights one below the other: a copy. */
export async function stacked(parts: readonly LoadedWeight[]): Promise<LoadedWeight> {
  const tensors: Tensor<"float32">[] = [];
  for (const part of parts) tensors.push("tensor" in part ? part.tensor : await readRange(part));
  const data = new Float32Array(tensors.reduce((sum, { size }) => sum + size, 0));
  let at = 0;
  for (const tensor of tensors) {
    data.set(tensor.data, at);
    at += tensor.size;
  }
  const shape = twice(parts[0]!).shape;
  return { shape, tensor: new Tensor("float32", shape, data) };
}

/** With the shape of two of it, for a dry run. */
export const twice = (weight: LoadedWeight): LoadedWeight => ({
  ...weight,
  shape: [2 * weight.shape[0]!, ...weight.shape.slice(1)],
});

/** The square matrix that changes nothing. */
export function identity(size: unknown): LoadedWeight {
  const side = typeof size === "number" ? size : 0;
  const data = new Float32Array(side * side);
  for (let i = 0; i < side; i++) data[i * (side + 1)] = 1;
  return { shape: [side, side], tensor: new Tensor("float32", [side, side], data) };
}

/** A convolution of 1×1 as the matrix of a linear layer. */
export function withoutKernel(weight: LoadedWeight): LoadedWeight {
  const shape = weight.shape.slice(0, 2);
  if (weight.shape.length !== 4 || weight.shape[2] !== 1 || weight.shape[3] !== 1) return weight;
  return "tensor" in weight ? { shape, tensor: weight.tensor.reshape(shape) } : { ...weight, shape };
}

/** Equal parts along the first axis, without copying. */
export function splitRows(weight: LoadedWeight, count: number, name: string, path: string): LoadedWeight[] {
  const [rows = 0, ...rest] = weight.shape;
  if (rows % count !== 0) {
    throw new FormatError(path, `"${name}" must have a multiple of ${count} rows; got [${weight.shape.join(",")}].`);
  }
  const shape = [rows / count, ...rest];
  return Array.from({ length: count }, (_, i) => {
    if ("tensor" in weight) {
      const size = weight.tensor.size / count;
      return { shape, tensor: new Tensor("float32", shape, weight.tensor.data.subarray(i * size, (i + 1) * size)) };
    }
    const length = weight.range.length / count;
    return { shape, range: { ...weight.range, offset: weight.range.offset + i * length, length } };
  });
}

/** The shape alone, for a dry run. */
export const flipped = (weight: LoadedWeight): LoadedWeight => ({ ...weight, shape: [...weight.shape].reverse() });

/** Read, with rows and columns exchanged. */
export async function transposed(weight: LoadedWeight): Promise<LoadedWeight> {
  const [rows = 0, columns = 0] = weight.shape;
  const source = "tensor" in weight ? weight.tensor : await readRange(weight);
  const values = new Float32Array(source.size);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      values[column * rows + row] = source.data[row * columns + column]!;
    }
  }
  return { shape: [columns, rows], tensor: new Tensor("float32", [columns, rows], values) };
}

async function readRange({ shape, range }: Extract<LoadedWeight, { range: unknown }>): Promise<Tensor<"float32">> {
  const bytes = await readFileAt(range.path, range);
  const { stored } = range;
  if (typeof stored === "object") throw new Error("a weight in few bits is not transposed.");
  if (stored === undefined) return fromBytes("float32", shape, bytes);
  const entry = { dtype: SAFETENSORS_NAMES[stored], shape: [...shape], offset: 0, length: bytes.length };
  return asFloat32(decodeSafetensorsEntry("text_projection", entry, bytes, range.path))!;
}
