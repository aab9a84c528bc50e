// Student's t distribution and the normal one: tail probabilities and critical values.

import { incompleteBeta } from "../tensor/incomplete-beta.js";

/** P(|T| > t) of Student's t with some degrees of freedom, which need not be whole. */
export function twoSidedTail(t: number, degreesOfFreedom: number): number {
  if (!Number.isFinite(degreesOfFreedom)) return twoSidedNormalTail(t);
  // With x = ν / (ν + t²): P = I_x(ν/2, 1/2).
  return incompleteBeta(degreesOfFreedom / (degreesOfFreedom + t * t), degreesOfFreedom / 2, 0.5);
}

/** t with P(|T| > t) = p, for p in (0, 1]. */
export function criticalValue(p: number, degreesOfFreedom: number): number {
  let [low, high] = [0, 1];
  while (twoSidedTail(high, degreesOfFreedom) > p && high < 1e9) high *= 2;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (twoSidedTail(middle, degreesOfFreedom) > p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** P(|Z| > z): t with so many degrees of freedom that no difference is left in double precision's first ten digits. */
export const twoSidedNormalTail = (z: number): number => twoSidedTail(z, 1e9);
