// What was found on some styles, tried again on others, as parts of the study's page.

import { type Compared, compare, HELD_OUT_ERROR, type MethodRuns, meanOf, runsByMethod } from "./comparisons.js";
import { fourDigits, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import type { RunRecord, RunSpec } from "./records.js";
import { differenceTable, titleOf } from "./report-tables.js";
import { taskName } from "./tasks.js";

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

/** Runs whose rate is looked for on what is compared itself: those at the rate that was taken, and the baseline's at all of them. */
export function splitByRate(specs: readonly RunSpec[]): { rate: number | undefined; own: RunSpec[]; tried: RunSpec[] } {
  const rate = specs.find(({ method }) => method !== BASELINE)?.learningRate;
  const own = specs.filter(({ learningRate }) => learningRate === rate);
  const rates = new Set(specs.map(({ learningRate }) => learningRate));
  // Of the tasks and seeds that every rate has.
  const keyOf = ({ task, seed }: RunSpec) => `${taskName(task)} ${seed}`;
  const baseline = specs.filter(({ method }) => method === BASELINE);
  const counts = new Map<string, number>();
  for (const spec of baseline) counts.set(keyOf(spec), (counts.get(keyOf(spec)) ?? 0) + 1);
  return { rate, own, tried: baseline.filter((spec) => counts.get(keyOf(spec)) === rates.size) };
}

/** The baseline's held-out error at each rate; empty where only one was tried. */
export function ratesTried(tried: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): string[] {
  const rates = [...new Set(tried.map(({ learningRate }) => learningRate))].sort((a, b) => a - b);
  const errors = rates.map((rate) => {
    const own = tried.flatMap(({ id, learningRate }) => (learningRate === rate ? (records.get(id) ?? []) : []));
    const error = meanOf(own, HELD_OUT_ERROR);
    return error === undefined ? "–" : fourDigits(error);
  });
  const seeds = new Set(tried.map(({ seed }) => seed)).size;
  if (rates.length < 2) return [];
  const head = [`${titleOf(BASELINE)}, ${seeds} ${seeds === 1 ? "seed" : "seeds"}`, ...rates.map(String)];
  return [markdownTable(head, [["held-out error", ...errors]])];
}
