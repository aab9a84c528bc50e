// Adapter tensors of whatever precision a file has, as the float32 that adapters are trained and applied in.

import { FormatError } from "../errors.js";
import { float16ToFloat32 } from "../tensor/float16.js";
import { allFinite, Tensor } from "../tensor/tensor.js";

/**
 * The tensors as float32; float16 is converted.
 *
 * @throws {FormatError} If a tensor has another dtype or holds a value that is not finite.
 */
export function floatState(state: ReadonlyMap<string, Tensor>, source: string): Map<string, Tensor<"float32">> {
  const converted = new Map<string, Tensor<"float32">>();
  for (const [name, value] of state) {
    if (value.dtype !== "float32" && value.dtype !== "float16") {
      throw new FormatError(source, `the tensor "${name}" is ${value.dtype}; an adapter's are float32 or float16.`);
    }
    const data = value.dtype === "float16" ? float16ToFloat32(value.data as Uint16Array) : (value.data as Float32Array);
    if (!allFinite(data)) throw new FormatError(source, `the tensor "${name}" holds values not finite.`);
    converted.set(name, new Tensor("float32", value.shape, data));
  }
  return converted;
}

/** Values times a factor; the same tensor where that is 1. */
export function scaled(value: Tensor<"float32">, factor: number): Tensor<"float32"> {
  if (factor === 1) return value;
  return new Tensor(
    "float32",
    value.shape,
    value.data.map((each) => each * factor),
  );
}
