// What the study claims, as a part of its page: every comparison whose corrected interval leaves zero out, and nothing else.

import { type Compared, claimOf } from "./comparisons.js";
import { intervalText, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import { titleOf } from "./report-tables.js";

/** Comparisons of one table. */
export interface Claimed {
  /** Which table. */
  where: string;
  cells: readonly Compared[];
  /** The same comparisons at one learning rate, for those at tuned ones. */
  controls?: readonly Compared[] | undefined;
}

/** The section. @param isMeasured - Whether there is any run that could show something. */
export function claimsSection(claimed: readonly Claimed[], isMeasured: boolean): string[] {
  const lines = claimed.flatMap(({ where, cells, controls = [] }) =>
    cells.flatMap((cell) => {
      const claim = claimOf(cell);
      if (claim === 0) return [];
      const { row, metric, interval } = cell;
      const control = controls.find((other) => other.row === row && other.metric === metric);
      const text = `${intervalText(interval!).replaceAll("**", "")} ${metric.isRelative ? "%" : "points"}`;
      const same = control?.interval ? intervalText(control.interval) : "";
      return [[where, titleOf(row), metric.title, claim > 0 ? "better" : "worse", text, same]];
    }),
  );
  const nothing = isMeasured
    ? "Nothing: no corrected interval leaves zero out."
    : "Nothing yet: there is no run that was measured.";
  const head = ["comparison", "method", "measure", "", "difference", "at the same rate"];
  return [
    "## What can be claimed",
    `Differences to ${titleOf(BASELINE)} whose interval, corrected for all comparisons of its table, leaves zero out. Beside each ` +
      "that was made at tuned rates is what is left of it at one rate, where that was compared: a claim for a form of FeRA is one " +
      "for its routing only if it holds there. Provisional is what not all runs are there for.",
    lines.length > 0 ? markdownTable(head, lines, 4) : nothing,
  ];
}
