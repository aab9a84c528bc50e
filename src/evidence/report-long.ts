// Whether what was found is the same after longer training, as a part of the study's page: the order of methods, and how they
// differ at each learning rate.

import { HELD_OUT_ERROR, meanOf, runsByMethod } from "./comparisons.js";
import { fourDigits, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import type { RunRecord, RunSpec } from "./records.js";
import { type Comparison, compareGroups } from "./report-groups.js";
import { differenceTable, titleOf } from "./report-tables.js";

/** All methods after the longer training, one comparison for each learning rate. */
export interface LongComparisons {
  steps: number;
  rates: readonly Comparison<number>[];
}

/** Compares at each rate that the baseline was trained with, too. @param specs - Of two lengths. */
export function compareLong(specs: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): LongComparisons {
  const steps = Math.max(...specs.map((spec) => spec.steps));
  const long = specs.filter((spec) => spec.steps === steps);
  const rates = compareGroups(long, ({ learningRate }) => learningRate, records);
  return { steps, rates: rates.sort((a, b) => a.key - b.key) };
}

/**
 * The section; empty where no seed has all methods at both lengths.
 *
 * @param note - Said of the comparisons where not all runs are there.
 */
export function longSection(
  specs: readonly RunSpec[],
  records: ReadonlyMap<string, RunRecord>,
  { steps, rates }: LongComparisons,
  note: string,
): string[] {
  const order = orderOf(specs, records);
  if (order.length === 0) return [];
  const told =
    `Beside ${titleOf(BASELINE)} at the same learning rate, those of a quarter of the steps${note}: differences in percent, each table ` +
    "corrected for all of its comparisons.";
  const tables = rates.flatMap(({ key: rate, rows, baseline, cells }) => [
    `**${steps} steps at ${rate}**`,
    differenceTable(rows, baseline, cells),
  ]);
  return ["## The same after longer training?", ...order, ...(tables.length > 0 ? [told, ...tables] : [])];
}

/** Errors after both lengths at tuned rates, of the seeds that have all of them. */
function orderOf(specs: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): string[] {
  const lengths = [...new Set(specs.map(({ steps }) => steps))].sort((a, b) => a - b);
  const tuned = new Map(
    specs.flatMap(({ steps, method, learningRate }) => (steps === lengths[0] ? [[method, learningRate]] : [])),
  );
  const own = specs.filter(({ method, learningRate }) => tuned.get(method) === learningRate);
  const isWhole = (seed: number) => {
    const ofSeed = own.filter((spec) => spec.seed === seed);
    return ofSeed.length === tuned.size * lengths.length && ofSeed.every(({ id }) => records.has(id));
  };
  const seeds = [...new Set(own.map(({ seed }) => seed))].filter(isWhole);
  if (lengths.length < 2 || seeds.length === 0) return [];
  const errors = lengths.map((steps) => {
    const rows = runsByMethod(
      own.filter((spec) => spec.steps === steps && seeds.includes(spec.seed)),
      records,
    );
    return new Map(rows.map(({ row, records }) => [row, meanOf(records, HELD_OUT_ERROR)!]));
  });
  const methods = [...tuned.keys()];
  const [short, long] = [errors[0]!, errors.at(-1)!];
  const agreement = kendall(methods.map((method) => [short.get(method)!, long.get(method)!]));
  return [
    `Held-out error on ${specs[0]!.task.style} after ${lengths.join(" and ")} steps, at rates tuned for the fewer, ` +
      `${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"}. Kendall's τ of the two orders is ${agreement.toFixed(2)}: 1 where they are the same, ` +
      "−1 where one is the other reversed.",
    markdownTable(
      ["method", "rate", ...lengths.map((steps) => `${steps} steps`)],
      methods.map((method) => [
        titleOf(method),
        `${tuned.get(method)}`,
        ...errors.map((column) => fourDigits(column.get(method)!)),
      ]),
    ),
  ];
}

/** (concordant − discordant) / all pairs; tied pairs count nothing above. */
export function kendall(pairs: readonly (readonly [number, number])[]): number {
  let sum = 0;
  for (const [i, [a, b]] of pairs.entries()) {
    for (const [c, d] of pairs.slice(i + 1)) sum += Math.sign(a - c) * Math.sign(b - d);
  }
  return sum / ((pairs.length * (pairs.length - 1)) / 2);
}
