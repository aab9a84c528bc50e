// Forms of FeRA beside the baseline at the learning rate that they were tuned to, as a part of the study's page.

import { type Compared, compare, METRICS, type MethodRuns, runsByMethod } from "./comparisons.js";
import { cellText, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import type { Part } from "./parts.js";
import type { Plan } from "./plan.js";
import { isRouted, type RunRecord, type RunSpec } from "./records.js";
import { titleOf } from "./report-tables.js";
import { isTest } from "./tasks.js";

/** Each form with the baseline of its own rate, all of them corrected together. */
export interface SameRateComparison {
  rows: readonly MethodRuns[];
  cells: readonly Compared[];
}

/**
 * Compares the forms that have a rate at which the baseline was trained, too, on the styles that claims are made on.
 *
 * @param steps - Of all runs that are compared.
 */
export function compareAtSameRate(
  plan: Plan,
  records: ReadonlyMap<string, RunRecord>,
  steps: number,
): SameRateComparison {
  const tested = (part: Part): RunSpec[] => (plan.byPart.get(part) ?? []).filter(isTest);
  const specs = [...tested("main"), ...tested("confirm")].filter((spec) => spec.steps === steps);
  const baselines = new Map<number, RunRecord[]>();
  for (const { id, learningRate } of tested("same-rate")) {
    const record = records.get(id);
    if (record) baselines.set(learningRate, [...(baselines.get(learningRate) ?? []), record]);
  }
  const rows = runsByMethod(specs.filter(isRouted), records).flatMap((own) => {
    const baseline = baselines.get(own.records[0]!.spec.learningRate);
    return baseline ? [{ ...own, baseline }] : [];
  });
  return { rows, cells: rows.length === 0 ? [] : compare(rows, []) };
}

/** The section; empty where there is nothing to compare. */
export function sameRateSection({ rows, cells }: SameRateComparison): string[] {
  if (rows.length === 0) return [];
  const metrics = METRICS.filter((metric) => cells.some((cell) => cell.metric === metric));
  return [
    "## Equal steps, the same learning rate",
    "A tuned rate is one of four, so that one method can be ahead of another for the rate that it got. Each form of FeRA beside " +
      `${titleOf(BASELINE)} at the same rate, in percent as above. What shows above and not here is the rate's doing.`,
    markdownTable(
      ["method", "rate", ...metrics.map(({ title }) => title)],
      rows.map(({ row, records }) => [
        titleOf(row),
        `${records[0]!.spec.learningRate}`,
        ...metrics.map((metric) => cellText(cells.find((cell) => cell.row === row && cell.metric === metric))),
      ]),
    ),
  ];
}
