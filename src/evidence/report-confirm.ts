// What was found on some styles, tried again on others, as parts of the study's page.

import { type Compared, compare, type MethodRuns, runsByMethod } from "./comparisons.js";
import { BASELINE } from "./methods.js";
import type { RunRecord, RunSpec } from "./records.js";
import { differenceTable } from "./report-tables.js";

/** One comparison with the baseline. */
export interface Confirmation {
  title: "equal steps" | "equal time";
  rows: readonly MethodRuns[];
  baseline: readonly RunRecord[];
  cells: readonly Compared[];
}

/** Compares with the baseline's runs: at its steps, and those with other steps, which take its time. */
export function compareConfirmed(specs: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): Confirmation[] {
  const baselineSpecs = specs.filter(({ method }) => method === BASELINE);
  const others = specs.filter(({ method }) => method !== BASELINE);
  const steps = baselineSpecs[0]?.steps;
  const baseline = runsByMethod(baselineSpecs, records)[0]?.records;
  if (!baseline) return [];
  const parts = [
    { title: "equal steps", own: others.filter((spec) => spec.steps === steps) },
    { title: "equal time", own: others.filter((spec) => spec.steps !== steps) },
  ] as const;
  return parts.flatMap(({ title, own }) => {
    const rows = runsByMethod(own, records);
    return rows.length === 0 ? [] : [{ title, rows, baseline, cells: compare(rows, baseline) }];
  });
}

/** A table for each comparison. */
export const confirmationTables = (confirmed: readonly Confirmation[]): string[] =>
  confirmed.flatMap(({ title, rows, baseline, cells }) => [
    `**${title}**${stepsText(title, rows)}`,
    differenceTable(rows, baseline, cells),
  ]);

/** Of those that do not have all steps of the baseline. */
function stepsText(title: Confirmation["title"], rows: readonly MethodRuns[]): string {
  if (title === "equal steps") return "";
  return `, ${[...new Set(rows.map(({ records }) => records[0]!.spec.steps))].join(" and ")} steps`;
}
