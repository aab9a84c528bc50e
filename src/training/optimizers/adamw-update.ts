// AdamW's step in float64 arithmetic over float32 arrays, for optimizers that use it as a part.

/** Coefficients of one step. */
export interface AdamWCoefficients {
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  learningRate: number;
  /** Counted from 1. */
  k: number;
}

/**
 * θ ← θ·(1 − lr·λ) − lr·m̂ / (√v̂ + ε), with the moments m and v updated before; all in place.
 *
 * @see Loshchilov & Hutter 2019, arXiv:1711.05101
 */
export function updateByAdamW(
  parameter: Float32Array,
  gradient: Float32Array,
  { first, second }: { first: Float32Array; second: Float32Array },
  { betas: [beta1, beta2], eps, weightDecay, learningRate, k }: AdamWCoefficients,
): void {
  const stepSize = learningRate / (1 - beta1 ** k);
  const root = 1 / Math.sqrt(1 - beta2 ** k);
  const oneMinusDecay = 1 - learningRate * weightDecay;
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]!;
    const m = beta1 * first[i]! + (1 - beta1) * g;
    const v = beta2 * second[i]! + (1 - beta2) * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i]! * oneMinusDecay - (stepSize * m) / (Math.sqrt(v) * root + eps);
  }
}
