// T5's relative positions: which learned bias a query has for a key, by how far it is and on which side.

/** What the buckets follow. */
export interface BucketOptions {
  /** Half of them for keys before the query or at it, half for those behind. */
  buckets: number;
  /** Keys farther than this share the last bucket of their side. */
  maxDistance: number;
}

/**
 * The bucket of every pair of query and key. Of n buckets of a side the first n/2 are for one distance each, the others for
 * ranges that grow by a factor up to `maxDistance`.
 *
 * @param tokens - L.
 * @returns L·L numbers, row by row of queries.
 * @see Raffel et al. 2020, arXiv:1910.10683, section 2.1
 */
export function positionBuckets(tokens: number, { buckets, maxDistance }: BucketOptions): BigInt64Array {
  const ofSide = Math.floor(buckets / 2);
  const exact = Math.floor(ofSide / 2);
  // In float32, as torch computes it: at powers of the factor the rounding decides.
  const { fround } = Math;
  const bucketOf = (distance: number): number => {
    if (distance < exact) return distance;
    const ratio = fround(fround(Math.log(fround(distance / exact))) / fround(Math.log(maxDistance / exact)));
    return Math.min(exact + Math.trunc(fround(ratio * (ofSide - exact))), ofSide - 1);
  };
  const byDistance = Array.from({ length: tokens }, (_, distance) => bucketOf(distance));
  const table = new BigInt64Array(tokens * tokens);
  for (let query = 0; query < tokens; query++) {
    for (let key = 0; key < tokens; key++) {
      const side = key > query ? ofSide : 0;
      table[query * tokens + key] = BigInt(side + byDistance[Math.abs(key - query)]!);
    }
  }
  return table;
}
