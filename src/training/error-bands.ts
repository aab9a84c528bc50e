// An error split by spatial frequency. Parts add up to the whole.

/** Bands, the lowest first, and the highest frequency of each as a share of the highest that the grid can hold. */
const BANDS = { low: 1 / 4, middle: 1 / 2, high: Number.POSITIVE_INFINITY } as const;

/** Names of the bands, the lowest first. */
export const ERROR_BANDS = Object.keys(BANDS) as readonly (keyof typeof BANDS)[];

/** A mean square by band. */
export type BandErrors = Record<keyof typeof BANDS, number>;

/**
 * The mean square of a residual `[C, H, W]`, as a sum over bands of frequency.
 *
 * With X the orthonormal DCT-II of a channel, mean r² = Σ X²/(C·H·W) (Parseval); X at (u, v) has the frequency
 * max(u/H, v/W), 1 being the grid's highest, and belongs to the first band that reaches it.
 *
 * @param residual - Values of one sample, C·H·W of them.
 */
export function errorByBand(residual: Float32Array, height: number, width: number): BandErrors {
  const [rows, columns] = [cosines(height), cosines(width)];
  const sums: BandErrors = { low: 0, middle: 0, high: 0 };
  const half = new Float64Array(height * width);
  for (let start = 0; start < residual.length; start += height * width) {
    // Along the width, then along the height.
    for (let y = 0; y < height; y++) {
      for (let v = 0; v < width; v++) {
        let sum = 0;
        for (let x = 0; x < width; x++) sum += columns[v * width + x]! * residual[start + y * width + x]!;
        half[y * width + v] = sum;
      }
    }
    for (let u = 0; u < height; u++) {
      for (let v = 0; v < width; v++) {
        let sum = 0;
        for (let y = 0; y < height; y++) sum += rows[u * height + y]! * half[y * width + v]!;
        sums[bandOf(Math.max(u / height, v / width))] += sum * sum;
      }
    }
  }
  for (const band of ERROR_BANDS) sums[band] /= residual.length;
  return sums;
}

/** sum += errors, band by band. */
export function addedTo(sum: BandErrors, errors: BandErrors): void {
  for (const band of ERROR_BANDS) sum[band] += errors[band];
}

const bandOf = (frequency: number) => ERROR_BANDS.find((band) => frequency < BANDS[band])!;

const matrices = new Map<number, Float64Array>();

/** The orthonormal DCT-II of n values: √(2/n)·cos(π(k + ½)u/n), row u, √(1/n) for u = 0. */
function cosines(n: number): Float64Array {
  let matrix = matrices.get(n);
  if (!matrix) {
    matrix = new Float64Array(n * n);
    for (let u = 0; u < n; u++) {
      for (let k = 0; k < n; k++) {
        matrix[u * n + k] = Math.sqrt((u === 0 ? 1 : 2) / n) * Math.cos((Math.PI * (k + 0.5) * u) / n);
      }
    }
    matrices.set(n, matrix);
  }
  return matrix;
}
