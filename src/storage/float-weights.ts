// Weights of one precision as another: which types there are, their values in memory, and as bytes for a file.

import { FormatError } from "../errors.js";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../tensor/float16.js";
import { sizeOf, Tensor, toBytes } from "../tensor/tensor.js";
import { decodeSafetensorsEntry, type SafetensorsDType, type SafetensorsEntry } from "./safetensors.js";

/** What a copy of weights can be written as. */
export const FLOAT_TYPES = ["float32", "float16", "bfloat16"] as const;

export type FloatType = (typeof FLOAT_TYPES)[number];

/** The kinds of copies in the cache. */
export type CopyType = FloatType | "int8" | "nf4";

/** As safetensors name them. */
export const SAFETENSORS_NAMES = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

/** Types that a file's weights can have but that nothing keeps: they are converted. */
export type FileFloat = FloatType | "float64" | "float8";

const FLOATS: Partial<Record<SafetensorsDType, FileFloat>> = {
  F8_E4M3: "float8",
  F8_E5M2: "float8",
  F16: "float16",
  BF16: "bfloat16",
  F32: "float32",
  F64: "float64",
};

/** Converted at a time: small enough to hold twice, large enough for few steps. */
const CHUNK_ELEMENTS = 2 ** 22;

/**
 * The name of a floating-point type; undefined for integers and booleans.
 *
 * @param source - Names the file in errors.
 * @throws {FormatError} If it is a type that weights cannot have here.
 */
export function floatName(name: string, dtype: SafetensorsDType, source: string): FileFloat | undefined {
  if (/^(I|U)\d+$|^BOOL$/.test(dtype)) return undefined;
  const known = FLOATS[dtype];
  if (known === undefined) {
    throw new FormatError(
      source,
      `the weight "${name}" is ${dtype}; weights must be F32, F16, BF16, F8_E4M3, F8_E5M2 or F64.`,
    );
  }
  return known;
}

/** A decoded tensor as float32, exactly for the half precisions. Undefined for integers and booleans. */
export function asFloat32(value: Tensor): Tensor<"float32"> | undefined {
  if (value.dtype === "float32") return value as Tensor<"float32">;
  if (value.dtype !== "float16") return undefined;
  return new Tensor("float32", value.shape, float16ToFloat32(value.data as Uint16Array));
}

/** The nearest values of a type, as float32. */
export function rounded(value: Tensor<"float32">, to: FloatType): Tensor<"float32"> {
  if (to === "float32") return value;
  const data =
    to === "float16"
      ? float16ToFloat32(float32ToFloat16(value.data))
      : bfloat16ToFloat32(float32ToBfloat16(value.data));
  return new Tensor("float32", value.shape, data);
}

/** The nearest values of a type, as its bytes. */
export function encodeFloats(value: Tensor<"float32">, to: FloatType): Uint8Array {
  if (to === "float32") return toBytes(value);
  const bits = to === "float16" ? float32ToFloat16(value.data) : float32ToBfloat16(value.data);
  return new Uint8Array(bits.buffer);
}

/**
 * The values of tensors in a safetensors file as bytes of a type, one tensor after the other.
 *
 * @param source - Names the file in errors.
 * @param entries - With offsets in the file; each of a floating-point type.
 * @param read - Reads the file.
 */
export async function* floatChunks(
  source: string,
  entries: Iterable<readonly [name: string, entry: SafetensorsEntry]>,
  read: (offset: number, length: number) => Promise<Uint8Array>,
  to: FloatType = "float32",
): AsyncGenerator<Uint8Array> {
  for (const [name, { dtype, length, shape, offset }] of [...entries]) {
    const elements = sizeOf(shape);
    const width = length / Math.max(elements, 1);
    for (let from = 0; from < elements; from += CHUNK_ELEMENTS) {
      const count = Math.min(CHUNK_ELEMENTS, elements - from);
      const bytes = await read(offset + from * width, count * width);
      const entry = { dtype, shape: [count], offset: 0, length: bytes.length };
      yield encodeFloats(asFloat32(decodeSafetensorsEntry(name, entry, bytes, source))!, to);
    }
  }
}
