// The orthogonal matrix that is nearest to another, approximately: the iteration at the heart of Muon.

/** Settings of `orthogonalized`. */
export interface NewtonSchulzOptions {
  /** a, b and c. */
  nsCoefficients: readonly [number, number, number];
  nsSteps: number;
  /** The least norm that the matrix is divided by. */
  eps: number;
}

/**
 * Brings all singular values of a matrix near 1 (0.7 … 1.2 with Muon's coefficients) and leaves its singular vectors.
 *
 * X = M/max(‖M‖, eps); then, n times, X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X; on the transposed matrix where it has more rows than
 * columns. In float64.
 *
 * @param matrix - `[rows, columns]`; not changed.
 */
export function orthogonalized(
  matrix: Float64Array,
  rows: number,
  columns: number,
  { nsCoefficients: [a, b, c], nsSteps, eps }: NewtonSchulzOptions,
): Float64Array {
  const isTall = rows > columns;
  const [r, n] = isTall ? [columns, rows] : [rows, columns];
  let norm = 0;
  for (const value of matrix) norm += value * value;
  const scale = 1 / Math.max(Math.sqrt(norm), eps);
  let x: Float64Array = isTall ? transposed(matrix, rows, columns) : matrix.slice();
  for (let i = 0; i < x.length; i++) x[i]! *= scale;
  let next: Float64Array = new Float64Array(x.length);
  const gram = new Float64Array(r * r);
  const polynomial = new Float64Array(r * r);
  for (let step = 0; step < nsSteps; step++) {
    // Both are symmetric: half of the products are enough.
    timesOwnTransposed(x, r, n, gram);
    timesOwnTransposed(gram, r, r, polynomial);
    for (let i = 0; i < polynomial.length; i++) polynomial[i] = b * gram[i]! + c * polynomial[i]!;
    for (let i = 0; i < x.length; i++) next[i] = a * x[i]!;
    addProduct(polynomial, x, r, n, next);
    [x, next] = [next, x];
  }
  return isTall ? transposed(x, r, n) : x;
}

/** result ← X Xᵀ, X being `[rows, columns]`. */
function timesOwnTransposed(x: Float64Array, rows: number, columns: number, result: Float64Array): void {
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += x[i * columns + k]! * x[j * columns + k]!;
      result[i * rows + j] = sum;
      result[j * rows + i] = sum;
    }
  }
}

/** result ← result + P X, P being `[rows, rows]` and X `[rows, columns]`. */
function addProduct(p: Float64Array, x: Float64Array, rows: number, columns: number, result: Float64Array): void {
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < rows; k++) {
      const factor = p[i * rows + k]!;
      for (let j = 0; j < columns; j++) result[i * columns + j]! += factor * x[k * columns + j]!;
    }
  }
}

function transposed(matrix: Float64Array, rows: number, columns: number): Float64Array {
  const result = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]!;
  }
  return result;
}
