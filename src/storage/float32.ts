// Weights of other precision as float32: which types there are, and their values in memory.

import { FormatError } from "../errors.js";
import { float16ToFloat32 } from "../tensor/float16.js";
import { Tensor } from "../tensor/tensor.js";
import type { SafetensorsDType } from "./safetensors.js";

const FLOATS: Partial<Record<SafetensorsDType, string>> = {
  F16: "float16",
  BF16: "bfloat16",
  F32: "float32",
  F64: "float64",
};

/**
 * The name of a floating-point type; undefined for integers and booleans.
 *
 * @param source - Names the file in errors.
 * @throws {FormatError} If it is a type that weights cannot have here.
 */
export function floatName(name: string, dtype: SafetensorsDType, source: string): string | undefined {
  if (/^(I|U)\d+$|^BOOL$/.test(dtype)) return undefined;
  const known = FLOATS[dtype];
  if (known === undefined) {
    throw new FormatError(source, `the weight "${name}" is ${dtype}; weights must be F32, F16, BF16 or F64.`);
  }
  return known;
}

/** A decoded tensor as float32, exactly for the half precisions. Undefined for integers and booleans. */
export function asFloat32(value: Tensor): Tensor<"float32"> | undefined {
  if (value.dtype === "float32") return value as Tensor<"float32">;
  if (value.dtype !== "float16") return undefined;
  return new Tensor("float32", value.shape, float16ToFloat32(value.data as Uint16Array));
}
