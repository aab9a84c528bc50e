// Floats of 8 bits to float32, which has all of their values: e4m3fn (no infinity) and e5m2 (the upper half of a float16).
// Source: Micikevicius et al. 2022, arXiv:2209.05433.

import { float16ToFloat32 } from "./float16.js";

/** By the number of exponent and mantissa bits, as safetensors name them. */
export type Float8 = "F8_E4M3" | "F8_E5M2";

const TABLES: Readonly<Record<Float8, Float32Array>> = {
  F8_E4M3: Float32Array.from({ length: 256 }, (_, byte) => {
    const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
    if (exponent === 15 && mantissa === 7) return Number.NaN;
    const magnitude = exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10);
    return byte < 128 ? magnitude : -magnitude;
  }),
  F8_E5M2: float16ToFloat32(Uint16Array.from({ length: 256 }, (_, byte) => byte << 8)),
};

/** Decodes to float32, exactly. */
export function float8ToFloat32(bytes: Uint8Array, type: Float8): Float32Array {
  const table = TABLES[type];
  const values = new Float32Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) values[i] = table[bytes[i]!]!;
  return values;
}
