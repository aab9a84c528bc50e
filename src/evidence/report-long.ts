// Whether the order of methods is the same after longer training, as a part of the study's page.

import { HELD_OUT_ERROR, type MethodRuns, meanOf, runsByMethod } from "./comparisons.js";
import { fourDigits, markdownTable } from "./markdown.js";
import type { RunRecord, RunSpec } from "./records.js";
import { titleOf } from "./report-tables.js";

/** The section; empty where no method has both lengths. Only seeds that have both lengths of all methods shown count. */
export function longSection(specs: readonly RunSpec[], records: ReadonlyMap<string, RunRecord>): string[] {
  const lengths = [...new Set(specs.map(({ steps }) => steps))].sort((a, b) => a - b);
  const methods = new Set(specs.map(({ method }) => method));
  const isWhole = (seed: number) => {
    const own = specs.filter((spec) => spec.seed === seed);
    return own.length === methods.size * lengths.length && own.every(({ id }) => records.has(id));
  };
  const seeds = [...new Set(specs.map(({ seed }) => seed))].filter(isWhole);
  if (lengths.length < 2 || seeds.length === 0) return [];
  const columns = lengths.map((steps) =>
    runsByMethod(
      specs.filter((spec) => spec.steps === steps && seeds.includes(spec.seed)),
      records,
    ),
  );
  const errors = columns.map(
    (rows) => new Map(rows.map(({ row, records: own }: MethodRuns) => [row, meanOf(own, HELD_OUT_ERROR)!])),
  );
  const [short, long] = [errors[0]!, errors.at(-1)!];
  const agreement = kendall([...methods].map((method) => [short.get(method)!, long.get(method)!]));
  return [
    "## The same after longer training?",
    `Held-out error on ${specs[0]!.task.style} after ${lengths.join(" and ")} steps, the same learning rates, ` +
      `${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"}. Kendall's τ of the two orders is ${agreement.toFixed(2)}: 1 where they are the same, ` +
      "−1 where one is the other reversed. Differences that are within the intervals of the other tables can turn around by chance.",
    markdownTable(
      ["method", ...lengths.map((steps) => `${steps} steps`)],
      [...methods].map((method) => [titleOf(method), ...errors.map((column) => fourDigits(column.get(method)!))]),
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
