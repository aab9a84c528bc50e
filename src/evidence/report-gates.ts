// What the gates do, as a part of the study's page.

import type { MethodRuns } from "./comparisons.js";
import { intervalText, markdownTable } from "./markdown.js";
import type { GateResult } from "./records.js";
import { titleOf } from "./report-tables.js";
import { type Interval, type Observation, simultaneousIntervals } from "./statistics.js";
import { taskName } from "./tasks.js";

/** The section of runs that have gates; empty where there are none. */
export function gatesSection(rows: readonly MethodRuns[]): string[] {
  const table = gatesTable(rows);
  if (table === "") return [];
  return [
    "## What the gates do",
    "R² of gates and of energies on the timestep: 1 where the clock explains all, and images at one timestep do not differ. Range " +
      "of gates: between the timesteps where an expert's mean gate is largest and least, of the expert where that is most. Spread at t: " +
      "standard deviation between images at one timestep of each band's share, low to high. Error in percent more than with live " +
      "gates, where they are frozen to their mean at each timestep, and to one mean for all, with intervals over seeds corrected for " +
      "each column. Overlap of experts' subspaces, inputs and outputs, and by chance: 1 where they are the same.",
    table,
  ];
}

/** A row for each method that has gates; empty where none has. */
export function gatesTable(rows: readonly MethodRuns[]): string {
  const routed = rows
    .map(({ row, records }) => ({ row, records: records.filter(({ gates }) => gates !== undefined) }))
    .filter(({ records }) => records.length > 0);
  if (routed.length === 0) return "";
  const losses = intervals(routed, ({ frozenAtTimestep, live }) => frozenAtTimestep / live);
  const wholeLosses = intervals(routed, ({ frozen, live }) => frozen / live);
  const table = routed.map(({ row, records }, i) => {
    const own = records.map(({ gates }) => gates!);
    const share = (of: (gates: GateResult) => number | undefined): string => {
      const values = own.flatMap((gates) => of(gates) ?? []);
      return values.length === 0 ? "–" : meanOf(values).toFixed(3);
    };
    const overlap = (key: "down" | "up", chance: "downByChance" | "upByChance"): string => {
      const value = share((gates) => gates.overlap?.[key]);
      return value === "–" ? value : `${value} (${share((gates) => gates.overlap?.[chance])})`;
    };
    return [
      titleOf(row),
      share(({ gatesByTimestep }) => gatesByTimestep),
      share(({ meanGates }) => largestRange(meanGates)),
      share(({ energiesByTimestep }) => energiesByTimestep),
      own[0]!.energySpread.map((_, band) => share(({ energySpread }) => energySpread[band])).join(", "),
      intervalText(losses[i]!),
      intervalText(wholeLosses[i]!),
      ...[overlap("down", "downByChance"), overlap("up", "upByChance")],
    ];
  });
  const head = ["R² of gates", "range of gates", "R² of energies", "spread at t", "frozen at t", "frozen"];
  return markdownTable(["method", ...head, "overlap of A", "overlap of B"], table);
}

/** Largest less least of an expert's mean gates over timesteps, of the expert where that is most. */
function largestRange(meanGates: GateResult["meanGates"]): number {
  const ranges = meanGates[0]!.gates.map((_, expert) => {
    const values = meanGates.map(({ gates }) => gates[expert]!);
    return Math.max(...values) - Math.min(...values);
  });
  return Math.max(...ranges);
}

/** Of a ratio to the error with live gates, in percent more. */
function intervals(rows: readonly MethodRuns[], ratio: (gates: GateResult) => number): Interval[] {
  return simultaneousIntervals(
    rows.map(({ records }) =>
      records.map(({ spec, gates }): Observation => {
        return { seed: spec.seed, name: "", stratum: taskName(spec.task), value: 100 * (ratio(gates!) - 1) };
      }),
    ),
  );
}

const meanOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
