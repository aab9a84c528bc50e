// Tables that several sections of the study's page have.

import { ALL_METHODS } from "./all-methods.js";
import { type Compared, HELD_OUT_ERROR, METRICS, type MethodRuns, type Metric, meanOf } from "./comparisons.js";
import { cellText, fourDigits, markdownTable } from "./markdown.js";
import { BASELINE, methodNamed } from "./methods.js";
import type { RunRecord } from "./records.js";

/** A method's title in any part. @throws {ConfigError} If there is no such method. */
export const titleOf = (name: string): string => methodNamed(name, ALL_METHODS).title;

/** The metrics that any comparison has, in their order. */
export const metricsOf = (cells: readonly Compared[]): readonly Metric[] =>
  METRICS.filter((metric) => cells.some((cell) => cell.metric === metric));

/** A row's comparisons, one for each metric. */
export const cellTexts = (cells: readonly Compared[], row: string, metrics: readonly Metric[]): string[] =>
  metrics.map((metric) => cellText(cells.find((cell) => cell.row === row && cell.metric === metric)));

/** Means of what the rows are compared with, and their differences to it. */
export function differenceTable(
  rows: readonly MethodRuns[],
  baseline: readonly RunRecord[],
  cells: readonly Compared[],
  comparedWith = BASELINE,
): string {
  const metrics = metricsOf(cells);
  const shown = metrics.length > 0 ? metrics : [HELD_OUT_ERROR];
  const own = [titleOf(comparedWith), ...shown.map((metric) => fourDigits(meanOf(baseline, metric) ?? Number.NaN))];
  const others = rows.filter(({ row }) => row !== comparedWith && row !== "none");
  return markdownTable(
    ["method", ...shown.map(({ title }) => title)],
    [own, ...others.map(({ row }) => [titleOf(row), ...cellTexts(cells, row, shown)])],
  );
}

/** Errors by band of frequency, in percent of all of the baseline's. */
export function bandTable(rows: readonly MethodRuns[], baseline: readonly RunRecord[]): string {
  const bands = Object.keys(baseline[0]?.heldOut?.byBand ?? {});
  const mean = (records: readonly RunRecord[], band: string) =>
    records.reduce((sum, { heldOut }) => sum + heldOut!.byBand[band]!, 0) / records.length;
  const total = bands.reduce((sum, band) => sum + mean(baseline, band), 0);
  return markdownTable(
    ["method", ...bands],
    rows.map(({ row, records }) => [
      titleOf(row),
      ...bands.map((band) => `${((100 * mean(records, band)) / total).toFixed(2)}`),
    ]),
  );
}
