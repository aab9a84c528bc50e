// Eight bits to a number: dynamic codes, scaled block by block, as bitsandbytes keeps optimizer states.

/** Numbers that share one scale. */
export const QUANTIZATION_BLOCK = 256;

/**
 * The 256 values of a dynamic code, in ascending order: seven decades, each with twice as many steps as the one below.
 *
 * @param signed - Whether half of them are negative; otherwise every decade has twice as many.
 * @see Dettmers 2015, arXiv:1511.04561; Dettmers et al. 2021, arXiv:2110.02861
 */
export function dynamicCode(signed: boolean): Float32Array {
  const values: number[] = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const count = 2 ** (decade + (signed ? 0 : 1));
    // Rounded as torch.linspace in float32 does, from either end: checkpoints of others mean the same values.
    const step = Math.fround(Math.fround(1 - Math.fround(0.1)) / count);
    const bound = (i: number) => Math.fround(2 * i < count ? Math.fround(0.1) + step * i : 1 - step * (count - i));
    for (let i = 0; i < count; i++) {
      const middle = Math.fround((bound(i) + bound(i + 1)) / 2);
      const value = Math.fround(Math.fround(10 ** (decade - 6)) * middle);
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return Float32Array.from(values).sort();
}

/**
 * The code's values that are nearest to those of one block, relative to the block's largest magnitude.
 *
 * @param values - Up to {@link QUANTIZATION_BLOCK} numbers.
 * @param codes - Filled with positions in `code`.
 * @returns The largest magnitude.
 */
export function quantizeBlock(values: Float32Array, code: Float32Array, codes: Uint8Array): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  const scale = largest === 0 ? 0 : 1 / largest;
  for (let i = 0; i < values.length; i++) codes[i] = nearest(code, Math.fround(values[i]! * scale));
  return largest;
}

/** Position of the nearest of ascending values, by bisection. */
function nearest(code: Float32Array, value: number): number {
  let low = 0;
  let high = code.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (code[middle]! <= value) low = middle;
    else high = middle;
  }
  return value - code[low]! <= code[high]! - value ? low : high;
}
