// How small a difference the study would have found, as a part of its page: what its size costs.

import { median } from "./averages.js";
import type { Compared } from "./comparisons.js";
import { fourDigits, markdownTable } from "./markdown.js";
import { detectableDifference } from "./statistics.js";

/** The section of a table's comparisons; empty where there are no intervals. */
export function powerSection(cells: readonly Compared[]): string[] {
  const metrics = [...new Set(cells.map(({ metric }) => metric))];
  const rows = metrics.flatMap((metric) => {
    const intervals = cells.flatMap((cell) =>
      cell.metric === metric && cell.interval?.corrected ? [cell.interval] : [],
    );
    if (intervals.length === 0) return [];
    const middle = (factors?: { seeds?: number; names?: number }) =>
      median(intervals.map((interval) => detectableDifference(interval, factors)!)).toPrecision(2);
    const share = median(intervals.map(({ seedShare }) => seedShare!));
    const unit = metric.isRelative ? "%" : "points";
    const sizes = [middle(), middle({ seeds: 2 }), middle({ names: 2 })].map(
      (size) => `${fourDigits(Number(size))} ${unit}`,
    );
    return [[metric.title, ...sizes, `${(100 * share).toFixed(0)} %`]];
  });
  if (rows.length === 0) return [];
  return [
    "## What is too small for this study",
    "The true difference that it finds four times in five, corrected as the table above is: the median over methods; what it would " +
      "be with twice the seeds, and with twice the held-out names; and how much of the variance comes from seeds.",
    markdownTable(["measure", "found with 80 %", "twice the seeds", "twice the names", "from seeds"], rows),
  ];
}
