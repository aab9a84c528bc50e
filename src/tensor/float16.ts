// IEEE 754 half precision and bfloat16, to and from float32.

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);
let halfTable: Float32Array | undefined;

function decodeHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Decodes float16 bits to float32, exactly. */
export function float16ToFloat32(source: Uint16Array): Float32Array {
  if (!halfTable) {
    halfTable = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) halfTable[bits] = decodeHalf(bits);
  }
  const result = new Float32Array(source.length);
  for (let i = 0; i < source.length; i++) result[i] = halfTable[source[i]!]!;
  return result;
}

/** Encodes float32 as float16 bits, rounding to nearest, ties to even; overflow becomes infinity. */
export function float32ToFloat16(source: Float32Array): Uint16Array {
  const result = new Uint16Array(source.length);
  for (let i = 0; i < source.length; i++) {
    FLOAT[0] = source[i]!;
    const bits = BITS[0]!;
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) {
      result[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    } else if (magnitude >= 0x477ff000) {
      result[i] = sign | 0x7c00;
    } else if (magnitude < 0x38800000) {
      // Subnormal half: scale to units of 2^-24 and round to even.
      const scaled = Math.abs(FLOAT[0]!) * 2 ** 24;
      const floor = Math.floor(scaled);
      const rest = scaled - floor;
      result[i] = sign | (rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor);
    } else {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      result[i] = sign | ((rounded - 0x38000000) >>> 13);
    }
  }
  return result;
}

/** Encodes float32 as bfloat16 bits, rounding to nearest, ties to even; NaN stays one. */
export function float32ToBfloat16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const result = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i]!;
    const isNone = (value & 0x7fffffff) > 0x7f800000;
    result[i] = isNone ? (value >>> 16) | 0x40 : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
  return result;
}

/** Decodes bfloat16 bits to float32, exactly. */
export function bfloat16ToFloat32(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
  return new Float32Array(bits.buffer);
}
