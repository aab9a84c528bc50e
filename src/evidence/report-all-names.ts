// The main comparison on every held-out name, as a part of the study's page: whether what a share of them showed holds on all.

import { type Compared, compare, HELD_OUT_ERROR, meanOf, runsByMethod } from "./comparisons.js";
import { cellText, fourDigits, markdownTable } from "./markdown.js";
import { BASELINE } from "./methods.js";
import type { Plan } from "./plan.js";
import type { RunRecord, RunSpec } from "./records.js";
import { compareAtSameRate, compareForms, rateOfForms, type SameRateComparison } from "./report-same-rate.js";
import { titleOf } from "./report-tables.js";
import { isTest, taskName } from "./tasks.js";

/** Held-out errors on all names, on the styles that claims are made on. */
export interface AllNamesComparison {
  /** Each at its tuned rate. */
  tuned: readonly Compared[];
  /** The forms of FeRA at one rate with the baseline, and at its best one; all methods against the baseline at that. */
  sameRate: SameRateComparison;
  /** The baseline's mean error. */
  error: number;
  names: number;
  /** Names that the other parts measure. */
  otherNames: number;
  /** Trainings that are here and in the main part, and by how much their last losses differ at most, as a share. */
  repeated: number;
  lossDifference: number;
}

/** Compares; undefined where the main part has all names itself, or nothing is there. */
export function compareOnAllNames(plan: Plan, records: ReadonlyMap<string, RunRecord>): AllNamesComparison | undefined {
  const { byPart } = plan;
  const main = (byPart.get("main") ?? []).filter(isTest);
  const specs = (byPart.get("all-names") ?? []).filter(isTest);
  const baselineSpecs = specs.filter(({ method }) => method === BASELINE);
  const tunedRates = new Map(main.map(({ method, learningRate }) => [method, learningRate]));
  const tunedSpecs = specs.filter(({ method, learningRate }) => learningRate === tunedRates.get(method));
  const rows = runsByMethod(tunedSpecs, records);
  const own = rows.find(({ row }) => row === BASELINE)?.records;
  if (!own || main.some(({ settings }) => settings.limit === undefined)) return undefined;
  const others = rows.filter(({ row }) => row !== BASELINE && row !== "none");
  const first = new Map(main.map((spec) => [trainingOf(spec), records.get(spec.id)?.loss?.last]));
  const changes = tunedSpecs.flatMap((spec) => {
    const [before, after] = [first.get(trainingOf(spec)), records.get(spec.id)?.loss?.last];
    return before === undefined || after === undefined ? [] : [Math.abs(after / before - 1)];
  });
  return {
    tuned: others.length > 0 ? compare(others, own, [HELD_OUT_ERROR]) : [],
    sameRate: {
      ...compareAtSameRate(tunedSpecs, baselineSpecs, records, [HELD_OUT_ERROR]),
      formsAtBest: compareForms(specs, baselineSpecs, records, rateOfForms(plan)),
    },
    error: meanOf(own, HELD_OUT_ERROR)!,
    names: own[0]!.heldOut!.names.length,
    otherNames: Math.max(...main.map(({ id }) => records.get(id)?.heldOut?.names.length ?? 0)),
    repeated: changes.length,
    lossDifference: Math.max(0, ...changes),
  };
}

const trainingOf = ({ method, task, seed }: RunSpec): string => `${method} ${taskName(task)} ${seed}`;

/** The section. @param note - Said of it where not all runs are there. */
export function allNamesSection(comparison: AllNamesComparison | undefined, note: string): string[] {
  if (!comparison || comparison.tuned.length === 0) return [];
  const { tuned, sameRate, error, names, otherNames, repeated, lossDifference } = comparison;
  const { best, formsAtBest } = sameRate;
  const of = (cells: readonly Compared[] | undefined, row: string) => {
    const cell = cells?.find((each) => each.row === row);
    return cell ? cellText(cell) : "–";
  };
  const rows = tuned.map((cell) => [
    titleOf(cell.row),
    cellText(cell),
    of(sameRate.cells, cell.row),
    ...(best ? [of(best.cells, cell.row)] : []),
    ...(formsAtBest ? [of(formsAtBest.cells, cell.row)] : []),
  ]);
  return [
    "## The same on all held-out names",
    `Held-out error of the same trainings on all ${names} names, with noise of their own; all other tables have ${otherNames} of them${note}. ` +
      `${titleOf(BASELINE)} has ${fourDigits(error)}; differences to it in percent, each column corrected for all of its comparisons. ` +
      `The last losses of the ${repeated} trainings are those of the main part, ` +
      (lossDifference === 0 ? "in every digit." : `within ${(100 * lossDifference).toPrecision(1)} %.`),
    markdownTable(
      [
        "method",
        "at tuned rates",
        "at the same rate",
        ...(best ? [`against LoRA at ${best.rate}, the best rate after the fact`] : []),
        ...(formsAtBest ? [`both at ${formsAtBest.rate}`] : []),
      ],
      rows,
    ),
  ];
}
