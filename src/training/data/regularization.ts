// How regularization images are weighed against what is to be learned. Pure.

/**
 * How often each regularization image comes in an epoch, as kohya's scripts have it: as often together as the training
 * images do. They are taken in order with their own repeats, again with one more each, until there are enough.
 *
 * @param own - Repeats of each regularization image.
 * @param training - Sum of the training images' repeats.
 * @returns Repeats; 0 for those that are not needed.
 */
export function balancedRepeats(own: readonly number[], training: number): number[] {
  const repeats = own.map(() => 0);
  if (own.length === 0) return repeats;
  let total = 0;
  for (let i = 0; i < own.length && total < training; i++) {
    repeats[i] = own[i]!;
    total += own[i]!;
  }
  const missing = Math.max(0, training - total);
  const rounds = Math.floor(missing / own.length);
  return repeats.map((value, i) => value + (missing > 0 ? rounds + (i < missing % own.length ? 1 : 0) : 0));
}
