// Paired comparisons of methods with the baseline: what is measured of both on the same names, seeds and tasks.

import { mean } from "./averages.js";
import type { RunRecord, RunSpec } from "./records.js";
import { excludesZero, type Interval, type Observation, simultaneousIntervals } from "./statistics.js";
import { taskName } from "./tasks.js";

/** Something that is compared. */
export interface Metric {
  name: string;
  title: string;
  /** Whether differences are in percent of the baseline's mean, or in points of a hundred. */
  isRelative: boolean;
  /** −1 where less is better, 1 where more is; 0 where neither. */
  better: -1 | 0 | 1;
  /** Of a run, by held-out name; under the empty name what a run has one of. */
  of(record: RunRecord): Map<string, number>;
}

const byName = (
  record: RunRecord,
  of: (result: NonNullable<RunRecord["heldOut"]>["names"][number]) => number | undefined,
): Map<string, number> =>
  new Map(
    (record.heldOut?.names ?? []).flatMap((result): [string, number][] => {
      const value = of(result);
      return value === undefined ? [] : [[result.name, value]];
    }),
  );
const once = (value: number | undefined): Map<string, number> => new Map(value === undefined ? [] : [["", value]]);

/** What is compared, the one that claims are about first. */
export const METRICS: readonly Metric[] = [
  {
    ...{ name: "error", title: "held-out error", isRelative: true, better: -1 },
    of: (record) => byName(record, ({ error }) => error),
  },
  {
    ...{ name: "lab", title: "colour distance", isRelative: true, better: -1 },
    of: (record) => byName(record, ({ drawing }) => drawing?.lab),
  },
  {
    ...{ name: "edges", title: "edge distance", isRelative: true, better: -1 },
    of: (record) => byName(record, ({ drawing }) => drawing?.edges),
  },
  {
    ...{ name: "shape", title: "shape distance", isRelative: true, better: -1 },
    of: (record) => byName(record, ({ drawing }) => drawing?.shape),
  },
  {
    ...{ name: "nearest", title: "nearest to its own", isRelative: false, better: 1 },
    of: (record) => byName(record, ({ drawing }) => drawing && Number(drawing.isNearest)),
  },
  {
    ...{ name: "forgetting", title: "error on the base's style", isRelative: true, better: -1 },
    of: (record) => once(record.own?.error),
  },
  {
    ...{ name: "drift", title: "drift on the base's style", isRelative: true, better: -1 },
    of: (record) => once(record.own?.drift),
  },
  {
    ...{ name: "diversity", title: "diversity", isRelative: true, better: 0 },
    of: (record) => once(record.drawings?.diversity),
  },
];

/** The metric that claims of a single measure are about. */
export const HELD_OUT_ERROR = METRICS[0]!;

/** A method's runs, among those of a table. */
export interface MethodRuns {
  /** The method's name, or what else tells rows apart. */
  row: string;
  records: readonly RunRecord[];
  /** What they are compared with, where it is not what all others are. */
  baseline?: readonly RunRecord[];
}

/** One cell. */
export interface Compared {
  row: string;
  metric: Metric;
  /** The mean over tasks of the means over seeds and names. */
  mean: number;
  /** Of the paired differences to the baseline; undefined for the baseline itself, and where no pair is there. */
  interval?: Interval | undefined;
}

/** The runs of specs that are there, by method. */
export function runsByMethod(specs: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): MethodRuns[] {
  const rows = new Map<string, RunRecord[]>();
  for (const { id, method } of specs) {
    const record = records.get(id);
    if (record) rows.set(method, [...(rows.get(method) ?? []), record]);
  }
  return [...rows].map(([row, own]) => ({ row, records: own }));
}

/**
 * Compares rows with the baseline's, all metrics and rows corrected together.
 *
 * @param metrics - Those that no run has are left out.
 */
export function compare(
  rows: readonly MethodRuns[],
  baseline: readonly RunRecord[],
  metrics: readonly Metric[] = METRICS,
): Compared[] {
  const cells = rows.flatMap(({ row, records, baseline: own = baseline }) =>
    metrics.flatMap((metric): (Compared & { observations: Observation[] })[] => {
      const mean = meanOf(records, metric);
      if (mean === undefined) return [];
      return [{ row, metric, mean, observations: differences(records, own, metric) }];
    }),
  );
  const compared = cells.filter(({ observations }) => observations.some(({ value }) => value !== 0));
  const intervals = compared.length > 0 ? simultaneousIntervals(compared.map(({ observations }) => observations)) : [];
  const known = new Map(compared.map((cell, i) => [cell as Compared, intervals[i]!]));
  return cells.map((cell) => ({ row: cell.row, metric: cell.metric, mean: cell.mean, interval: known.get(cell) }));
}

/** Whether something may be claimed of a cell, and whether it is good: −1 worse than the baseline, 1 better, 0 nothing. */
export function claimOf({ interval, metric }: Compared): -1 | 0 | 1 {
  if (!interval || !excludesZero(interval.corrected) || metric.better === 0) return 0;
  return Math.sign(interval.estimate) === metric.better ? 1 : -1;
}

/** The mean over tasks of a metric's means; undefined where no run has it. */
export function meanOf(records: readonly RunRecord[], metric: Metric): number | undefined {
  const tasks = new Map<string, number[]>();
  for (const record of records) {
    const name = taskName(record.spec.task);
    tasks.set(name, [...(tasks.get(name) ?? []), ...metric.of(record).values()]);
  }
  const means = [...tasks.values()].filter(({ length }) => length > 0).map(mean);
  return means.length > 0 ? mean(means) : undefined;
}

/** Paired by task, seed and name. */
function differences(records: readonly RunRecord[], baseline: readonly RunRecord[], metric: Metric): Observation[] {
  const keyOf = ({ spec }: RunRecord) => `${taskName(spec.task)} ${spec.seed}`;
  const others = new Map(baseline.map((record) => [keyOf(record), metric.of(record)]));
  const scales = new Map<string, number>();
  return records.flatMap((record) => {
    const other = others.get(keyOf(record));
    if (!other) return [];
    const stratum = taskName(record.spec.task);
    let scale = scales.get(stratum);
    if (scale === undefined) {
      const own = baseline.filter(({ spec }) => taskName(spec.task) === stratum);
      scale = metric.isRelative ? meanOf(own, metric) || 1 : 1;
      scales.set(stratum, scale);
    }
    const { seed } = record.spec;
    return [...metric.of(record)].flatMap(([name, value]): Observation[] => {
      const base = other.get(name);
      return base === undefined ? [] : [{ seed, name, stratum, value: (100 * (value - base)) / scale! }];
    });
  });
}
