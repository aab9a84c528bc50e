// The study's page in words and tables. Every figure is of the runs; a claim stands only where a corrected interval leaves zero
// out, and what has not been run is said.

import { median } from "./averages.js";
import {
  type Compared,
  claimOf,
  compare,
  HELD_OUT_ERROR,
  type MethodRuns,
  meanOf,
  runsByMethod,
} from "./comparisons.js";
import { HYPOTHESES } from "./hypotheses.js";
import { cellText, fourDigits, markdownTable, percent } from "./markdown.js";
import { ABLATED, BASELINE } from "./methods.js";
import { PART_TITLES, PARTS, type Part } from "./parts.js";
import { PRESETS } from "./presets.js";
import type { RunRecord, RunSpec } from "./records.js";
import { howSection, LIMITS, ratesSection } from "./report-about.js";
import { allNamesSection } from "./report-all-names.js";
import { type Claimed, claimsSection } from "./report-claims.js";
import { type Confirmation, compareConfirmed, confirmationTables, ratesTried, splitByRate } from "./report-confirm.js";
import { gatesSection, gatesTable } from "./report-gates.js";
import { type Comparison, compareAll, compareGroups } from "./report-groups.js";
import type { PageInputs } from "./report-inputs.js";
import { compareLong, type LongComparisons, longSection } from "./report-long.js";
import { powerSection } from "./report-power.js";
import { sameRateSection } from "./report-same-rate.js";
import { bandTable, differenceTable, titleOf } from "./report-tables.js";
import { ABLATION_STYLE, isTest, TUNING_STYLE, taskName } from "./tasks.js";

/** The whole page. */
export function evidencePage(inputs: PageInputs): string {
  const page = new EvidencePage(inputs);
  return `${page.text().join("\n\n")}\n`;
}

class EvidencePage {
  // Each is bootstrapped once, and told in several places.
  private readonly mainCells: readonly Compared[];
  private readonly time: Comparison | undefined;
  private readonly longer: LongComparisons;
  private readonly longConfirmed: readonly Confirmation[];
  private readonly confirmed: readonly Confirmation[];
  private readonly kindsOf: Readonly<Record<"few-shot" | "subject", readonly Comparison<string>[]>>;

  constructor(private readonly inputs: PageInputs) {
    this.mainCells = inputs.main?.cells ?? [];
    this.time = compareAll(this.runs("time").filter(isTest), inputs.records);
    this.longer = compareLong(this.runs("long"), inputs.records);
    this.longConfirmed = compareConfirmed(splitByRate(this.runs("long-confirm")).own, inputs.records);
    this.confirmed = compareConfirmed(this.runs("confirm").filter(isTest), inputs.records);
    this.kindsOf = { "few-shot": this.kinds("few-shot"), subject: this.kinds("subject") };
  }

  text(): string[] {
    return [
      "# When routed experts are worth it",
      "Written by `fera evidence` from its runs. `docs/evidence.md` says how it is read, and what each number means.",
      ...this.state(),
      ...this.claims(),
      ...this.main(),
      ...powerSection(this.mainCells),
      ...sameRateSection(this.inputs.sameRate),
      ...allNamesSection(this.inputs.allNames, this.provisional("all-names")),
      ...this.plots(),
      ...this.equalTime(),
      ...longSection(this.runs("long"), this.inputs.records, this.longer, this.provisional("long")),
      ...this.longConfirmation(),
      ...this.byTask("few-shot", "From few drawings"),
      ...this.byTask("subject", "One thing in several drawings"),
      ...gatesSection(this.rows([...this.runs("main"), ...this.runs("hypotheses")]).rows),
      ...this.ablations(),
      ...this.hypotheses(),
      ...this.confirmation(),
      ...ratesSection(this.runs("rates"), this.inputs.records, this.inputs.study.preset),
      LIMITS,
      ...howSection(this.inputs),
    ].filter((block) => block !== "");
  }

  private runs(part: Part): readonly RunSpec[] {
    return this.inputs.plan.byPart.get(part) ?? [];
  }

  private rows(specs: readonly RunSpec[]): { rows: MethodRuns[]; baseline: readonly RunRecord[] } {
    const rows = runsByMethod(specs, this.inputs.records);
    return { rows, baseline: rows.find(({ row }) => row === BASELINE)?.records ?? [] };
  }

  private state(): string[] {
    const { plan, records, study } = this.inputs;
    const asked: readonly Part[] = PRESETS[study.preset].parts;
    const doneOf = (part: Part) => this.runs(part).filter(({ id }) => records.has(id)).length;
    const shown = PARTS.filter((part) => asked.includes(part) || doneOf(part) > 0);
    const parts = shown.map((part) => {
      const specs = this.runs(part);
      const done = doneOf(part);
      const waits = plan.waiting.find((each) => each.part === part);
      const note = waits ? `waits for ${waits.for}` : done === specs.length ? "" : "not complete";
      return [part, PART_TITLES[part], `${done} of ${specs.length}`, note];
    });
    const isWhole = parts.every(([, , , note]) => note === "");
    return [
      "## What was run",
      `Preset \`${study.preset}\`: ${study.steps} steps of ${study.settings.batchSize} drawings, ${study.seeds} ${study.seeds === 1 ? "seed" : "seeds"}${study.isTuned ? "" : ", **learning rates not tuned**"}. ` +
        (isWhole ? "All parts are complete." : "**Not all of the study has been run; what is missing is no result.**"),
      markdownTable(["part", "what for", "runs", ""], parts, 2),
    ];
  }

  private claims(): string[] {
    const { sameRate, allNames, records } = this.inputs;
    const onAllNames = `all held-out names${this.provisional("all-names")}`;
    const controls = sameRate.cells;
    const claimed: Claimed[] = [
      { where: `equal steps${this.provisional("main")}`, cells: this.mainCells, controls },
      { where: `equal steps, the same learning rate${this.provisional("same-rate")}`, cells: sameRate.cells },
      {
        where: `equal steps, all at ${sameRate.formsAtBest?.rate}${this.provisional("best-rate")}`,
        cells: sameRate.formsAtBest?.cells ?? [],
      },
      { where: onAllNames, cells: allNames?.tuned ?? [], controls: allNames?.sameRate.cells },
      { where: `${onAllNames}, the same learning rate`, cells: allNames?.sameRate.cells ?? [] },
      {
        where: `${onAllNames}, all at ${allNames?.sameRate.formsAtBest?.rate}`,
        cells: allNames?.sameRate.formsAtBest?.cells ?? [],
      },
      { where: `equal time${this.provisional("time")}`, cells: this.time?.cells ?? [], controls },
      ...this.longer.rates.map(({ key: rate, cells }) => ({
        where: `${this.longer.steps} steps at ${rate}${this.provisional("long")}`,
        cells,
      })),
      ...this.longConfirmed.map(({ title, cells }) => ({
        where: `longer training, ${title}${this.provisional("long-confirm")}`,
        cells,
      })),
      ...this.confirmed.map(({ title, cells }) => ({
        where: `confirmation at ${title}${this.provisional("confirm")}`,
        cells,
        controls,
      })),
      ...(["few-shot", "subject"] as const).flatMap((part) =>
        this.kindsOf[part].map(({ key: kind, cells }) => ({ where: `${kind}${this.provisional(part)}`, cells })),
      ),
    ];
    const isMeasured = [...records.values()].some(({ heldOut }) => heldOut !== undefined);
    return claimsSection(claimed, isMeasured);
  }

  /** Looking at a part again and again until something shows is no test. */
  private provisional(part: Part): string {
    const { plan, records } = this.inputs;
    const specs = this.runs(part).filter(isTest);
    const isWhole = specs.every(({ id }) => records.has(id)) && !plan.waiting.some((each) => each.part === part);
    return isWhole ? "" : " (provisional)";
  }

  private main(): string[] {
    const specs = this.runs("main").filter(isTest);
    const { rows, baseline } = this.rows(specs);
    if (rows.length === 0) return [];
    const { mainCells: cells } = this;
    const none = rows.find(({ row }) => row === "none");
    return [
      "## Equal steps, equal parameters",
      `Mean over ${stylesText(rows)}, whose drawings chose nothing. Differences to ${titleOf(BASELINE)} in percent ` +
        "(nearest: in points of a hundred), with 95 % intervals that hold for the whole table at once; bold ones leave zero out.",
      differenceTable(rows, baseline, cells),
      "What they are, and what they cost:",
      this.costTable(rows),
      ...(none ? [this.closerText(rows, none.records)] : []),
      "Held-out error by style:",
      this.styleTable(),
      "Held-out error by band of frequency, in percent of all of the baseline's:",
      bandTable(rows, baseline),
    ];
  }

  private costTable(rows: readonly MethodRuns[]): string {
    return markdownTable(
      [
        "method",
        "runs",
        "parameters",
        "of the budget",
        "processor seconds a step",
        "peak memory, MB",
        "file, MB",
        "learning rate",
      ],
      rows.map(({ row, records }) => {
        const [first] = records;
        const seconds = this.secondsPerStep(row) ?? medianOf(records.map(({ cpuSecondsPerStep }) => cpuSecondsPerStep));
        const memory = medianOf(this.timings(row).map(({ peakMemoryBytes }) => peakMemoryBytes));
        return [
          titleOf(row),
          `${records.length}`,
          `${first!.parameters}`,
          percent(first!.parameters / this.inputs.budget.parameters),
          seconds === undefined ? "–" : fourDigits(seconds),
          memory === undefined ? "–" : (memory / 1e6).toFixed(0),
          first!.fileBytes === undefined ? "–" : (first!.fileBytes / 1e6).toFixed(2),
          first!.spec.steps === 0 ? "–" : `${first!.spec.learningRate}`,
        ];
      }),
    );
  }

  /** Of the timings where they are, as one run was alone then. */
  private secondsPerStep(method: string): number | undefined {
    return medianOf(this.timings(method).map(({ cpuSecondsPerStep }) => cpuSecondsPerStep));
  }

  private timings(method: string): RunRecord[] {
    const { records } = this.inputs;
    return this.runs("speed").flatMap((spec) => (spec.method === method ? (records.get(spec.id) ?? []) : []));
  }

  private closerText(rows: readonly MethodRuns[], base: readonly RunRecord[]): string {
    const drawn = new Map(
      base.flatMap(({ spec, heldOut }) =>
        (heldOut?.names ?? []).flatMap(({ name, drawing }): [string, number][] =>
          drawing ? [[`${taskName(spec.task)} ${spec.seed} ${name}`, drawing.lab + drawing.edges]] : [],
        ),
      ),
    );
    const shares = rows.flatMap(({ row, records }) => {
      if (row === "none") return [];
      const pairs = records.flatMap(({ spec, heldOut }) =>
        (heldOut?.names ?? []).flatMap(({ name, drawing }) => {
          const before = drawn.get(`${taskName(spec.task)} ${spec.seed} ${name}`);
          return drawing && before !== undefined ? [drawing.lab + drawing.edges < before] : [];
        }),
      );
      if (pairs.length === 0) return [];
      return [[titleOf(row), percent(pairs.filter((closer) => closer).length / pairs.length), `${pairs.length}`]];
    });
    if (shares.length === 0) return "";
    return `Drawings closer to their true one than what the base draws:\n\n${markdownTable(["method", "closer", "drawings"], shares)}`;
  }

  private styleTable(): string {
    const specs = this.runs("main");
    const styles = [...new Set(specs.map(({ task }) => task.style))];
    const { rows } = this.rows(specs);
    const head = styles.map((style) => (style === TUNING_STYLE ? `${style} (tuned on)` : style));
    return markdownTable(
      ["method", ...head],
      rows.map(({ row, records }) => [
        titleOf(row),
        ...styles.map((style) => {
          const own = records.filter(({ spec }) => spec.task.style === style);
          return own.length === 0 ? "–" : fourDigits(meanOf(own, HELD_OUT_ERROR)!);
        }),
      ]),
    );
  }

  private plots(): string[] {
    return this.inputs.plots.map(({ file, title }) => `![${title}](${file})`);
  }

  private equalTime(): string[] {
    if (!this.time) return [];
    const { rows, baseline, cells } = this.time;
    const steps = rows.map(({ row, records }) => [titleOf(row), `${records[0]!.spec.steps}`]);
    return [
      "## Equal time",
      `Each method has as many steps as fit into the time of ${titleOf(BASELINE)}'s, by the processor's seconds a step, measured alone.`,
      differenceTable(rows, baseline, cells),
      markdownTable(["method", "steps"], steps),
    ];
  }

  /** One comparison for each task's kind: a number of drawings, or a subject. */
  private kinds(part: "few-shot" | "subject"): Comparison<string>[] {
    return compareGroups(this.runs(part), kindOf, this.inputs.records);
  }

  private byTask(part: "few-shot" | "subject", title: string): string[] {
    const kinds = this.kindsOf[part];
    if (kinds.length === 0) return [];
    const told =
      `All methods at the learning rate of ${titleOf(BASELINE)}, with ${this.runs(part)[0]!.steps} steps${this.provisional(part)}: rates ` +
      "were tuned on whole styles. Differences in percent, each table corrected for all of its comparisons.";
    const tables = kinds.flatMap(({ key: kind, rows, baseline, cells }) => [
      `**${kind}**`,
      differenceTable(rows, baseline, cells),
    ]);
    return [`## ${title}`, told, ...tables];
  }

  private ablations(): string[] {
    const blocks = (["consistency", "bands", "sigma", "numbers"] as const).flatMap((part) => {
      const { rows } = this.rows(this.runs(part));
      const own = rows.find(({ row }) => row === ABLATED)?.records ?? [];
      const variants = rows.filter(({ row }) => row !== ABLATED);
      if (own.length === 0 || variants.length === 0) return [];
      const cells = compare(variants, own, [HELD_OUT_ERROR]);
      return [`**${PART_TITLES[part]}**${this.provisional(part)}`, differenceTable(rows, own, cells, ABLATED)];
    });
    if (blocks.length === 0) return [];
    const told =
      `On ${ABLATION_STYLE}, at the same learning rate: what one change makes of *${titleOf(ABLATED)}*, which has three bands, three ` +
      "experts, and a finest blur of min(H, W) / 32. Differences to it in percent, each table corrected for all of its comparisons.";
    return ["## One thing exchanged at a time", told, ...blocks];
  }

  private hypotheses(): string[] {
    const { rows, baseline } = this.rows(this.runs("hypotheses"));
    const others = rows.filter(({ row }) => row !== BASELINE);
    const cells = baseline.length > 0 && others.length > 0 ? compare(others, baseline, [HELD_OUT_ERROR]) : [];
    const table = HYPOTHESES.map(({ method, prediction, expected }) => {
      const cell = cells.find(({ row }) => row === method.name);
      const claim = cell ? claimOf(cell) : 0;
      const outcome = !cell ? "not run" : claim === 0 ? "no difference shown" : claim > 0 ? "better" : "worse";
      const wanted = { [-1]: 1, 0: 0, 1: -1 }[expected];
      const verdict = !cell ? "" : claim === wanted ? "as predicted" : "not as predicted";
      return [method.title, prediction, cellText(cell), outcome, verdict];
    });
    return [
      "## Hypotheses",
      `Predicted before any run, tried on ${TUNING_STYLE} only: held-out error against ${titleOf(BASELINE)}'s in percent. “No ` +
        "difference shown” is no proof that there is none.",
      markdownTable(["variant", "prediction", "difference", "outcome", ""], table, 2),
    ];
  }

  private confirmation(): string[] {
    if (this.confirmed.length === 0) return [];
    return [
      "## The best of them, confirmed",
      "The two variants with the least held-out error on the tuning style, each with as many tries of a learning rate as every " +
        `method, on the styles that did not choose them: ${stylesText(this.rows(this.runs("confirm").filter(isTest)).rows)}.`,
      ...confirmationTables(this.confirmed),
    ];
  }

  private longConfirmation(): string[] {
    const specs = this.runs("long-confirm");
    const { rate, own, tried } = splitByRate(specs);
    if (this.longConfirmed.length === 0) return [];
    const gates = gatesTable(this.rows(own.filter(({ steps }) => steps === specs[0]!.steps)).rows);
    return [
      `Gates that follow energies or the timestep after ${specs[0]!.steps} steps, at ${rate}, the rate that suits ${titleOf(BASELINE)} ` +
        `best on the very styles, whose drawings chose nothing else of this: ${stylesText(this.rows(specs).rows)}` +
        `${this.provisional("long-confirm")}. A method that needs no more time than ${titleOf(BASELINE)} has no table of its own at equal time.`,
      ...ratesTried(tried, this.inputs.records),
      ...confirmationTables(this.longConfirmed),
      ...(gates === "" ? [] : ["Their gates, with the columns of *What the gates do*:", gates]),
    ];
  }
}

/** What tells tasks of a part apart, whatever the style. */
function kindOf({ task }: RunSpec): string {
  if (task.kind === "few-shot") return `${task.drawings} drawings`;
  return task.kind === "subject" ? task.subject : task.style;
}

/** The styles of the runs that are there. */
function stylesText(rows: readonly MethodRuns[]): string {
  return [...new Set(rows.flatMap(({ records }) => records.map(({ spec }) => spec.task.style)))].join(", ");
}

function medianOf(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : median(known);
}
