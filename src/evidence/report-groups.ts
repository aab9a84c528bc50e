// Methods compared with the baseline, once for each group of runs that are alike: of a rate, a number of drawings, a subject.

import { type Compared, compare, type MethodRuns, runsByMethod } from "./comparisons.js";
import { BASELINE } from "./methods.js";
import type { RunRecord, RunSpec } from "./records.js";

/** Rows of a table, what they are compared with, and how they differ from it. */
export interface Comparison<Key = unknown> {
  /** What the group's runs have in common. */
  key: Key;
  /** The baseline and the base without training among them. */
  rows: readonly MethodRuns[];
  baseline: readonly RunRecord[];
  cells: readonly Compared[];
}

/** One comparison for each group that has runs of the baseline and of another method, in the order of the specs. */
export function compareGroups<Key>(
  specs: readonly RunSpec[],
  keyOf: (spec: RunSpec) => Key,
  records: ReadonlyMap<string, RunRecord>,
): Comparison<Key>[] {
  return [...new Set(specs.map(keyOf))].flatMap((key) => {
    const group = specs.filter((spec) => keyOf(spec) === key);
    const rows = runsByMethod(group, records);
    const baseline = rows.find(({ row }) => row === BASELINE)?.records;
    const others = rows.filter(({ row }) => row !== BASELINE && row !== "none");
    return baseline && others.length > 0 ? [{ key, rows, baseline, cells: compare(others, baseline) }] : [];
  });
}

/** All specs as one group; undefined where there is nothing to compare. */
export const compareAll = (
  specs: readonly RunSpec[],
  records: ReadonlyMap<string, RunRecord>,
): Comparison | undefined => compareGroups(specs, () => undefined, records)[0];
