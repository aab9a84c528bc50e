// What is the learning rate's doing, as a part of the study's page: forms of FeRA beside the baseline at the rate that they were
// tuned to, and all methods beside the baseline at the rate that turned out best.

import {
  type Compared,
  compare,
  HELD_OUT_ERROR,
  METRICS,
  type MethodRuns,
  type Metric,
  meanOf,
  runsByMethod,
} from "./comparisons.js";
import { cellText, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import type { Part } from "./parts.js";
import type { Plan } from "./plan.js";
import { isRouted, type RunRecord, type RunSpec } from "./records.js";
import { cellTexts, metricsOf, titleOf } from "./report-tables.js";
import { isTest } from "./tasks.js";

/** Each form with the baseline of its own rate, all of them corrected together. */
export interface SameRateComparison {
  rows: readonly MethodRuns[];
  cells: readonly Compared[];
  /** Held-out errors of all methods against the baseline at the best of its rates; undefined where that is its own. */
  best: { rate: number; cells: readonly Compared[] } | undefined;
  /** Held-out errors of all forms of FeRA at that rate; undefined where no form was trained at it that has another. */
  formsAtBest?: { rate: number; cells: readonly Compared[] } | undefined;
}

/**
 * Compares what the main part and the confirmation trained, on the styles that claims are made on.
 *
 * @param steps - Of all runs that are compared.
 */
export function mainAtSameRate(plan: Plan, records: ReadonlyMap<string, RunRecord>, steps: number): SameRateComparison {
  const tested = (part: Part): RunSpec[] => (plan.byPart.get(part) ?? []).filter(isTest);
  const finalists = tested("confirm").filter(({ method }) => method !== BASELINE);
  const specs = [...tested("main"), ...finalists].filter((spec) => spec.steps === steps);
  const baselineSpecs = tested("same-rate");
  const formsAtBest = compareForms([...specs, ...tested("best-rate")], baselineSpecs, records, rateOfForms(plan));
  return { ...compareAtSameRate(specs, baselineSpecs, records), formsAtBest };
}

/** The rate that all forms of FeRA were trained at, too; undefined where it is not known yet. */
export const rateOfForms = ({ byPart }: Plan): number | undefined => byPart.get("best-rate")?.[0]?.learningRate;

/** Held-out errors of the forms that were trained at a rate. */
export function compareForms(
  specs: readonly RunSpec[],
  baselineSpecs: readonly RunSpec[],
  records: ReadonlyMap<string, RunRecord>,
  rate: number | undefined,
): SameRateComparison["formsAtBest"] {
  const atRate = (own: readonly RunSpec[]) => own.filter(({ learningRate }) => learningRate === rate);
  const baseline = runsByMethod(atRate(baselineSpecs), records)[0]?.records;
  const rows = runsByMethod(atRate(specs.filter(isRouted)), records);
  if (rate === undefined || !baseline || rows.length === 0) return undefined;
  return { rate, cells: compare(rows, baseline, [HELD_OUT_ERROR]) };
}

/**
 * Compares the forms that have a rate at which the baseline was trained, too.
 *
 * @param specs - At their tuned rates.
 * @param baselineSpecs - The baseline's at several rates.
 */
export function compareAtSameRate(
  specs: readonly RunSpec[],
  baselineSpecs: readonly RunSpec[],
  records: ReadonlyMap<string, RunRecord>,
  metrics: readonly Metric[] = METRICS,
): SameRateComparison {
  const baselines = new Map<number, RunRecord[]>();
  for (const { id, learningRate } of baselineSpecs) {
    const record = records.get(id);
    if (record) baselines.set(learningRate, [...(baselines.get(learningRate) ?? []), record]);
  }
  const rows = runsByMethod(specs.filter(isRouted), records).flatMap((own) => {
    const baseline = baselines.get(own.records[0]!.spec.learningRate);
    return baseline ? [{ ...own, baseline }] : [];
  });
  return {
    rows,
    cells: rows.length === 0 ? [] : compare(rows, [], metrics),
    best: compareWithBest(specs, baselines, records),
  };
}

/** The rate is chosen on what is compared, in the baseline's favour: what is ahead of it is ahead of any of its rates. */
function compareWithBest(
  specs: readonly RunSpec[],
  baselines: ReadonlyMap<number, readonly RunRecord[]>,
  records: ReadonlyMap<string, RunRecord>,
): SameRateComparison["best"] {
  const all = runsByMethod(
    specs.filter(({ steps }) => steps > 0),
    records,
  );
  const own = all.find(({ row }) => row === BASELINE)?.records;
  if (!own) return undefined;
  const tuned = own[0]!.spec.learningRate;
  const tried = [...new Map([...baselines, [tuned, own]])].filter(([, runs]) => runs.length === own.length);
  const [best] = tried
    .map(([rate, runs]) => ({ rate, runs, error: meanOf(runs, HELD_OUT_ERROR)! }))
    .sort((a, b) => a.error - b.error);
  if (!best || best.rate === tuned) return undefined;
  return { rate: best.rate, cells: compare(all, best.runs, [HELD_OUT_ERROR]) };
}

/** The section; empty where there is nothing to compare. */
export function sameRateSection({ rows, cells, best, formsAtBest }: SameRateComparison): string[] {
  if (rows.length === 0) return [];
  const metrics = metricsOf(cells);
  return [
    "## Equal steps, the same learning rate",
    "A tuned rate is one of four, so that one method can be ahead of another for the rate that it got. Each form of FeRA beside " +
      `${titleOf(BASELINE)} at the same rate, in percent as above. What shows above and not here is the rate's doing.`,
    markdownTable(
      ["method", "rate", ...metrics.map(({ title }) => title)],
      rows.map(({ row, records }) => [
        titleOf(row),
        `${records[0]!.spec.learningRate}`,
        ...cellTexts(cells, row, metrics),
      ]),
    ),
    ...(best
      ? [
          `After the fact, a rate of ${best.rate} suits ${titleOf(BASELINE)} best of those that it was trained with on these styles, which ` +
            "nobody knows before. Held-out error of each method at its tuned rate against that, in percent, corrected for all of them: " +
            "what is ahead here is ahead whatever the rate.",
          markdownTable(
            ["method", "held-out error"],
            best.cells.map((cell) => [titleOf(cell.row), cellText(cell)]),
          ),
        ]
      : []),
    ...(formsAtBest
      ? [
          `Every form of FeRA at ${formsAtBest.rate}, as ${titleOf(BASELINE)}, whatever rate it was tuned to: held-out error in ` +
            "percent, corrected for all of them.",
          markdownTable(
            ["method", "held-out error"],
            formsAtBest.cells.map((cell) => [titleOf(cell.row), cellText(cell)]),
          ),
        ]
      : []),
  ];
}
