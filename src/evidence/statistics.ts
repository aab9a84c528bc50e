// Intervals of paired differences over seeds and names, corrected for the number of comparisons.
//
// What is measured once for every seed and every name, both of which are samples of all that there might be, is resampled
// over both: a bootstrap in two ways. Seeds are few, so that what a plain bootstrap of five of them gives would be too short
// by a third; two things mend that. Of n units n − 1 are drawn, so that the resampled mean has the variance s²/n and not
// (n − 1)/n of it (Rao & Wu 1988). And critical values are Student's, with the degrees of freedom that seeds and names
// together give by Satterthwaite's formula.
//
// The correction is Westfall and Young's: the same resamples serve all comparisons, and the level α* of each interval is the
// α quantile of the smallest p over comparisons, so that with probability 1 − α all intervals hold at once. Comparisons that
// go together cost less than Bonferroni's correction takes.

import { ConfigError } from "../errors.js";
import { Generator } from "../tensor/random.js";
import { criticalValue, twoSidedNormalTail, twoSidedTail } from "./student-t.js";

/** One paired difference. */
export interface Observation {
  seed: number;
  /** What was measured, such as an icon's name; empty for what is measured once for a seed, which is not resampled by name. */
  name: string;
  /** Means are over each of these first, and then over all of them alike: the icon sets. */
  stratum: string;
  value: number;
}

/** A mean difference, with what may be said of it. */
export interface Interval {
  /** The mean over strata of the means over seeds and names. */
  estimate: number;
  /** Undefined, like the intervals, where there is but one seed, or nothing varies. */
  standardError?: number;
  degreesOfFreedom?: number;
  /** Of the variance, 0 … 1: what comes from seeds; the rest comes from names. */
  seedShare?: number;
  /** By itself, at the level asked for. */
  single?: readonly [number, number];
  /** Together with all other comparisons. */
  corrected?: readonly [number, number];
  seeds: number;
  names: number;
}

/** How intervals are made. */
export interface IntervalOptions {
  /** Default 0.95. */
  level?: number;
  /** Resamples. Default 2000. */
  resamples?: number;
  /** Default 0. */
  seed?: number;
}

/** Sums over observations, ready to be weighted. */
interface Prepared {
  /** By stratum: seed's number, name's number (−1 for what is not resampled), value. */
  strata: { seeds: Int32Array; names: Int32Array; values: Float64Array }[];
  seeds: number[];
  names: number[];
}

/**
 * The interval of every comparison, all of them corrected together.
 *
 * @throws {ConfigError} If a comparison has no observation, or one that is not finite.
 */
export function simultaneousIntervals(
  comparisons: readonly (readonly Observation[])[],
  { level = 0.95, resamples = 2000, seed = 0 }: IntervalOptions = {},
): Interval[] {
  const seeds = numbered(comparisons.flatMap((list) => list.map(({ seed }) => seed)));
  const names = numbered(comparisons.flatMap((list) => list.flatMap(({ name }) => (name === "" ? [] : [name]))));
  const prepared = comparisons.map((list) => prepare(list, seeds, names));
  const estimates = prepared.map((each) => weightedMean(each)!);
  const draws = prepared.map(() => new Float64Array(resamples));
  const generator = new Generator(seed);
  for (let draw = 0; draw < resamples; draw++) {
    const weights = [drawnCounts(seeds.size, generator), drawnCounts(names.size, generator)] as const;
    prepared.forEach((each, i) => {
      // A comparison of few names can have none of them in a draw; the draw then tells nothing of it.
      draws[i]![draw] = weightedMean(each, ...weights) ?? estimates[i]!;
    });
  }
  const errors = draws.map((values, i) =>
    Math.sqrt(values.reduce((sum, value) => sum + (value - estimates[i]!) ** 2, 0) / resamples),
  );
  const known = prepared.map(({ seeds }, i) => errors[i]! > 0 && seeds.length > 1);
  const smallest = Array.from({ length: resamples }, (_, draw) =>
    draws.reduce((least, values, i) => {
      if (!known[i]) return least;
      return Math.min(least, twoSidedNormalTail(Math.abs(values[draw]! - estimates[i]!) / errors[i]!));
    }, 1),
  ).sort((a, b) => a - b);
  const alpha = 1 - level;
  // With one comparison the two agree; the smallest p of a sample may be a little above α.
  const together = Math.min(alpha, smallest[Math.floor(alpha * resamples)]!);
  return prepared.map((each, i) => {
    const estimate = estimates[i]!;
    const counts = { seeds: each.seeds.length, names: each.names.length };
    if (!known[i]) return { estimate, ...counts };
    const standardError = errors[i]!;
    const { degreesOfFreedom, seedShare } = satterthwaite(each);
    const around = (p: number): readonly [number, number] => {
      const reach = criticalValue(p, degreesOfFreedom) * standardError;
      return [estimate - reach, estimate + reach];
    };
    return {
      ...{ estimate, standardError, degreesOfFreedom, seedShare, ...counts },
      ...{ single: around(alpha), corrected: around(together) },
    };
  });
}

/**
 * The smallest true difference that a comparison finds with probability 0.8: one whose estimate then falls outside of the
 * corrected interval around zero. Undefined where there is no interval.
 *
 * @param factors - How many times as many seeds and names there are; default 1. Critical values stay as they are, so that what more
 *   seeds would give is told a little too large.
 */
export function detectableDifference(
  { estimate, standardError, degreesOfFreedom, seedShare, corrected }: Interval,
  { seeds = 1, names = 1 }: { seeds?: number; names?: number } = {},
): number | undefined {
  if (standardError === undefined || !corrected) return undefined;
  const shrunk = Math.sqrt(seedShare! / seeds + (1 - seedShare!) / names);
  // P(T < t) = 0.8 where both tails together have 0.4.
  return shrunk * (corrected[1] - estimate + criticalValue(0.4, degreesOfFreedom!) * standardError);
}

/** Whether an interval leaves zero out, so that something may be claimed. */
export const excludesZero = (interval: readonly [number, number] | undefined): boolean =>
  interval !== undefined && (interval[0] > 0 || interval[1] < 0);

/** P of a difference as large as this one where there is none, by itself. */
export const singleP = ({ estimate, standardError, degreesOfFreedom }: Interval): number | undefined =>
  standardError === undefined ? undefined : twoSidedTail(Math.abs(estimate) / standardError, degreesOfFreedom!);

function numbered<T>(values: readonly T[]): Map<T, number> {
  return new Map([...new Set(values)].sort().map((value, i) => [value, i]));
}

function prepare(
  observations: readonly Observation[],
  seeds: ReadonlyMap<number, number>,
  names: ReadonlyMap<string, number>,
): Prepared {
  const bad = observations.find(({ value }) => !Number.isFinite(value));
  if (observations.length === 0 || bad) {
    const came = bad ? `${bad.value} of "${bad.name}", seed ${bad.seed}` : "none";
    throw new ConfigError(`a comparison needs finite differences, at least one; got ${came}.`);
  }
  const strata = [...new Set(observations.map(({ stratum }) => stratum))].map((stratum) => {
    const own = observations.filter((each) => each.stratum === stratum);
    return {
      seeds: Int32Array.from(own, ({ seed }) => seeds.get(seed)!),
      names: Int32Array.from(own, ({ name }) => names.get(name) ?? -1),
      values: Float64Array.from(own, ({ value }) => value),
    };
  });
  const all = (key: "seeds" | "names") =>
    [...new Set(strata.flatMap((each) => [...each[key]]))].filter((unit) => unit >= 0).sort((a, b) => a - b);
  return { strata, seeds: all("seeds"), names: all("names") };
}

/** How often each of n is drawn in n − 1 draws with replacement; once each where there is only one. */
function drawnCounts(n: number, generator: Generator): Float64Array {
  const counts = new Float64Array(n);
  if (n === 1) counts[0] = 1;
  for (let i = 1; i < n; i++) counts[Math.floor(generator.uniform() * n)]! += 1;
  return counts;
}

/** The mean over strata; undefined where a stratum has no weight. */
function weightedMean({ strata }: Prepared, ofSeeds?: Float64Array, ofNames?: Float64Array): number | undefined {
  let sum = 0;
  for (const { seeds, names, values } of strata) {
    let total = 0;
    let weight = 0;
    for (let i = 0; i < values.length; i++) {
      const name = names[i]!;
      const own = (ofSeeds ? ofSeeds[seeds[i]!]! : 1) * (ofNames && name >= 0 ? ofNames[name]! : 1);
      total += own * values[i]!;
      weight += own;
    }
    if (weight === 0) return undefined;
    sum += total / weight;
  }
  return sum / strata.length;
}

/**
 * (v_s + v_n)² / (v_s² / (S − 1) + v_n² / (N − 1)) of the variances that the means of seeds and of names have, and the share
 * v_s / (v_s + v_n).
 */
function satterthwaite(prepared: Prepared): { degreesOfFreedom: number; seedShare: number } {
  const parts = (["seeds", "names"] as const).map((key) => {
    const units = prepared[key];
    if (units.length < 2) return { variance: 0, degrees: 1 };
    const largest = Math.max(...units) + 1;
    const means = units.flatMap((unit) => {
      const chosen = new Float64Array(largest);
      chosen[unit] = 1;
      const [ofSeeds, ofNames] = key === "seeds" ? [chosen, undefined] : [undefined, chosen];
      const mean = weightedMean(prepared, ofSeeds, ofNames);
      return mean === undefined ? [] : [mean];
    });
    if (means.length < 2) return { variance: 0, degrees: 1 };
    const center = means.reduce((sum, value) => sum + value, 0) / means.length;
    const spread = means.reduce((sum, value) => sum + (value - center) ** 2, 0) / (means.length - 1);
    return { variance: spread / means.length, degrees: means.length - 1 };
  });
  const total = parts.reduce((sum, { variance }) => sum + variance, 0);
  const weighted = parts.reduce((sum, { variance, degrees }) => sum + variance ** 2 / degrees, 0);
  if (weighted === 0) return { degreesOfFreedom: 1, seedShare: 1 };
  return { degreesOfFreedom: total ** 2 / weighted, seedShare: parts[0]!.variance / total };
}
