// The learning rate that suits tasks best, looked for around one.

import { askAll } from "./not-yet.js";

/**
 * Halves or doubles as long as the error falls, and at last tries one between the best and the better of its neighbours.
 *
 * @param errorAt - The error at a multiple of the first rate, asked for more than once. What is not known yet it may throw
 *   ({@link NotYet}), after which the others of a step are asked for; Infinity is worse than any other.
 * @returns The best multiple of those that were tried.
 */
export function bestMultiple(errorAt: (multiple: number) => number): number {
  const lowestFirst = (multiples: readonly number[]): number[] =>
    askAll(multiples, (multiple) => ({ multiple, error: errorAt(multiple) }))
      // Infinities are equal, so that the first stays first.
      .sort((a, b) => (a.error === b.error ? 0 : a.error - b.error))
      .map(({ multiple }) => multiple);
  const around = (multiple: number) => lowestFirst([multiple, multiple / 2, multiple * 2]);
  let best = 1;
  let ordered = around(best);
  while (ordered[0] !== best) {
    best = ordered[0]!;
    ordered = around(best);
  }
  // About the geometric mean, of few digits.
  const between = best * (ordered[1]! < best ? 0.7 : 1.4);
  return lowestFirst([best, between])[0]!;
}
