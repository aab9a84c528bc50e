// Which runs the study has: parts, each with its methods, tasks and seeds. A pure function of what is asked for and of what has
// been found so far: learning rates, equal times and finalists follow from runs, so that later parts wait for earlier ones.

import type { IconStyle } from "../training/data/icons.js";
import { mean } from "./averages.js";
import { HYPOTHESES } from "./hypotheses.js";
import { ABLATED, ABLATIONS, adapterOf, BASELINE, METHODS, type Method, methodNamed } from "./methods.js";
import { askAll, NotYet } from "./not-yet.js";
import { PARTS, type Part } from "./parts.js";
import { PRESETS, type Preset } from "./presets.js";
import { bestMultiple } from "./rate-search.js";
import { isRouted, type Measures, type RunSpec, runSpec, type StudySettings } from "./records.js";
import { type PlanOptions, SpecMaker } from "./spec-maker.js";
import { ABLATION_STYLE, SUBJECTS, type Subject, type Task, TEST_STYLES, TUNING_STYLE } from "./tasks.js";

const FEW = [8, 32, 128] as const;
const FINALISTS = 2;
/** Trained longer, to see whether it stays as it is. */
const LONG_METHODS = [BASELINE, "fera", "fera-plain", "fera-energies", "fera-timestep"];
const LONG_FACTOR = 4;
/** Compared on other styles after that. */
const LONG_FINALISTS = ["fera-energies", "fera-timestep"];
/** Of those that a better rate is looked for with: rates differ by more than seeds do. */
const LONG_RATE_SEEDS = 2;
/** Of the steps: few drawings are learned sooner, and by heart after that. */
const FEW_SHARE = 1 / 2;
const SUBJECT_SHARE = 1 / 3;

/** What there is to run. */
export interface Plan {
  /** Each once, in order; some may have records. */
  runs: RunSpec[];
  /** Those that a part's tables are made of. */
  byPart: ReadonlyMap<Part, readonly RunSpec[]>;
  /** Parts of which some runs are not known yet, and what they wait for. */
  waiting: { part: Part; for: string }[];
}

/** The plan as far as it is known. */
export function makePlan(options: PlanOptions): Plan {
  return new Planner(options).plan();
}

class Planner {
  private readonly specs: SpecMaker;
  private readonly preset: Preset;
  private readonly withoutLimit: StudySettings;

  constructor(private readonly options: PlanOptions) {
    this.specs = new SpecMaker(options);
    this.preset = PRESETS[options.preset];
    this.withoutLimit = { ...options.settings, limit: undefined };
  }

  plan(): Plan {
    const { parts } = this.options;
    const byPart = new Map<Part, readonly RunSpec[]>();
    const waiting: Plan["waiting"] = [];
    for (const part of PARTS.filter((each) => parts.includes(each))) {
      const runs: RunSpec[] = [];
      const reasons = new Set<string>();
      for (const make of this.runsOf(part)) {
        try {
          runs.push(make());
        } catch (reason) {
          if (!(reason instanceof NotYet)) throw reason;
          reasons.add(reason.message);
        }
      }
      byPart.set(part, distinct(runs));
      if (reasons.size > 0) waiting.push({ part, for: [...reasons].join(", ") });
    }
    // What others wait for comes first, then the parts in their order.
    const all = [
      ...[...this.specs.needed.values()].flatMap((runs) => [...runs.values()]),
      ...[...byPart.values()].flat(),
    ];
    return { runs: distinct(all), byPart, waiting };
  }

  /** Makers of a part's runs: each throws {@link NotYet} where something is not known. */
  private runsOf(part: Part): (() => RunSpec)[] {
    const { steps } = this.options;
    const styles = this.styles([...TEST_STYLES, TUNING_STYLE]);
    const tested = this.styles(TEST_STYLES);
    const main = this.chosen(METHODS);
    const style = (name: IconStyle): Task => ({ kind: "style", style: name });
    switch (part) {
      case "rates":
        return main
          .filter(({ kind }) => kind !== "none")
          .flatMap((method) => this.specs.tries(method).map((run) => () => run));
      case "speed":
        return main
          .filter(({ kind }) => kind !== "none")
          .flatMap((method) => this.specs.timed(method).map((run) => () => run));
      case "main":
        return this.specs.each(main, styles.map(style), "all", () => steps);
      case "same-rate":
        return this.sameRates(main, tested.map(style));
      case "best-rate": {
        const tasks = tested.map(style);
        return this.later(() => {
          const forms = this.routed(main);
          const best = this.bestRateOf("same-rate", forms, (rated) =>
            this.specs.each([rated], tasks, "all", () => steps),
          );
          const others = forms.filter((form) => this.specs.rate(form) !== this.specs.rate(best));
          const atBest = others.map((form) => atRateOf(best, form));
          return this.specs.each(atBest, tasks, "error", () => steps);
        });
      }
      case "all-names":
        return (["main", "same-rate", "best-rate"] as const).flatMap((each) =>
          this.runsOf(each).map((make) => () => this.onAllNames(make())),
        );
      case "time":
        return this.specs.each(
          main.filter(({ kind }) => kind !== "none"),
          tested.map(style),
          "all",
          (method) => this.specs.equalTime(method),
        );
      case "long": {
        const tasks = this.styles([ABLATION_STYLE]).map(style);
        const compared = this.some(main, LONG_METHODS);
        // A rate that was tuned for few steps may be too high for many, for one method sooner than for another.
        const atEachRate = compared.flatMap((tuned) => compared.map((method) => atRateOf(tuned, method)));
        return [...this.specs.each(compared, tasks, "all", () => steps), ...this.longer(atEachRate, tasks, "all")];
      }
      case "long-confirm": {
        const tasks = tested.filter((name) => name !== ABLATION_STYLE).map(style);
        const finalists = this.some(main, LONG_FINALISTS);
        return this.later(() => {
          const { best, tried } = this.bestRateFor(tasks, this.bestOfLong());
          const others = finalists.map((method) => atRateOf(best, method));
          const baseline = atRateOf(best, methodNamed(BASELINE, METHODS));
          return [
            ...this.longer([baseline, ...others], tasks, "error"),
            ...tried.map((run) => () => run),
            ...this.specs.each(others, tasks, "error", (method) => this.specs.equalTime(method, LONG_FACTOR * steps)),
          ];
        });
      }
      case "few-shot": {
        const tasks = tested.flatMap((name) =>
          FEW.map((drawings): Task => ({ kind: "few-shot", style: name, drawings })),
        );
        const methods = atBaselineRate(this.some(main, this.preset.fewMethods));
        return this.specs.each(methods, tasks, "all", () => Math.ceil(FEW_SHARE * steps));
      }
      case "subject": {
        const subjects = Object.keys(SUBJECTS) as Subject[];
        const tasks = tested.flatMap((name) =>
          subjects.map((subject): Task => ({ kind: "subject", style: name, subject })),
        );
        const methods = atBaselineRate(this.some(main, this.preset.subjectMethods));
        return this.specs.each(methods, tasks, "all", () => Math.ceil(SUBJECT_SHARE * steps));
      }
      case "hypotheses": {
        const tried = [methodNamed(BASELINE, METHODS), ...this.chosen(HYPOTHESES.map(({ method }) => method))];
        return this.specs.each(tried, [style(TUNING_STYLE)], measuresOfVariant, () => steps);
      }
      case "confirm":
        return this.ofFinalists((finalists) => [
          ...this.specs.each([methodNamed(BASELINE, METHODS), ...finalists], tested.map(style), "all", () => steps),
          ...this.specs.each(finalists, tested.map(style), "all", (method) => this.specs.equalTime(method)),
        ]);
      default: {
        const variants = [methodNamed(ABLATED, METHODS), ...this.chosen(ABLATIONS[part])];
        return this.specs.each(variants, this.styles([ABLATION_STYLE]).map(style), measuresOfVariant, () => steps);
      }
    }
  }

  /** As many steps as the longer trainings have. */
  private longer(methods: readonly Method[], tasks: readonly Task[], measures: Measures): (() => RunSpec)[] {
    return this.specs.each(methods, tasks, measures, () => LONG_FACTOR * this.options.steps);
  }

  /** The baseline at the rates of all that are routed; of the finalists' too where they are asked for. */
  private sameRates(methods: readonly Method[], tasks: readonly Task[]): (() => RunSpec)[] {
    const { steps, parts } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const atRatesOf = (tuned: readonly Method[]) => {
      const runs = tuned.map((each) => atRateOf(each, baseline));
      return this.specs.each(runs, tasks, "all", () => steps);
    };
    return [...atRatesOf(this.routed(methods)), ...(parts.includes("confirm") ? this.ofFinalists(atRatesOf) : [])];
  }

  /** Makers of the finalists' runs, or one that waits for them. */
  private ofFinalists(make: (finalists: readonly Method[]) => (() => RunSpec)[]): (() => RunSpec)[] {
    return this.later(() => make(this.finalists()));
  }

  /** Makers that follow from runs, or one that waits for those. */
  private later(make: () => (() => RunSpec)[]): (() => RunSpec)[] {
    try {
      return make();
    } catch (reason) {
      return [
        () => {
          throw reason;
        },
      ];
    }
  }

  /** The run measured on every held-out name, by its errors alone where it is not measured on all of them anyway. */
  private onAllNames({ id: _, ...run }: RunSpec): RunSpec {
    const { limit } = run.settings;
    return runSpec(limit === undefined ? run : { ...run, measures: "error", settings: this.withoutLimit });
  }

  /** Of the methods that were trained longer, the one at whose learning rate the baseline came out best. */
  private bestOfLong(): Method {
    const tasks: Task[] = [{ kind: "style", style: ABLATION_STYLE }];
    const tuned = this.some(this.chosen(METHODS), LONG_METHODS);
    return this.bestRateOf("long", tuned, (rated) => this.longer([rated], tasks, "all"));
  }

  /**
   * Of tuned methods, the one at whose learning rate the baseline came out best.
   *
   * @param part - Whose runs tell it.
   * @param runsOf - Makers of the baseline's runs at a rate.
   */
  private bestRateOf(part: Part, tuned: readonly Method[], runsOf: (rated: Method) => (() => RunSpec)[]): Method {
    const { records, isEstimate } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const tried = askAll(tuned, (method) => {
      const runs = this.specs.need(
        part,
        runsOf(atRateOf(method, baseline)).map((make) => make()),
      );
      const errors = runs.map(({ id }) => records.get(id)?.heldOut?.error);
      return { method, error: errors.every((error) => error !== undefined) ? mean(errors) : undefined };
    });
    if (tried.some(({ error }) => error === undefined) && !isEstimate) throw new NotYet(`part ${part}`);
    return tried.sort((a, b) => (a.error ?? 0) - (b.error ?? 0))[0]!.method;
  }

  /**
   * The rate at which the baseline comes out best on the very tasks that others are compared with it on: what is ahead of it there is
   * not ahead for the rate's sake.
   *
   * @returns A method that has the rate, and the baseline's runs at all rates that were tried.
   */
  private bestRateFor(tasks: readonly Task[], first: Method): { best: Method; tried: RunSpec[] } {
    const { records, isEstimate } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const tried: RunSpec[] = [];
    const scaled = (by: number): Method => ({ ...first, rateFactor: (first.rateFactor ?? 1) * by });
    const multiple = bestMultiple((by) => {
      const runs = this.longer([atRateOf(scaled(by), baseline)], tasks, "error")
        .map((make) => make())
        .filter(({ seed }) => seed < LONG_RATE_SEEDS);
      tried.push(...this.specs.need("long-confirm", runs));
      const errors = runs.map(({ id }) => records.get(id)?.heldOut?.error);
      if (errors.every((error) => error !== undefined)) return mean(errors);
      if (isEstimate) return Number.POSITIVE_INFINITY;
      throw new NotYet("the rate that suits longer training");
    });
    return { best: scaled(multiple), tried: distinct(tried) };
  }

  /** The hypotheses with the lowest error on the tuning style, which then have as many tries of a rate as all methods. */
  private finalists(): readonly Method[] {
    const { seeds, steps, records, isEstimate } = this.options;
    const methods = this.chosen(HYPOTHESES.map(({ method }) => method));
    const means = methods.map((method) => {
      const runs = Array.from({ length: seeds }, (_, seed) => {
        const task: Task = { kind: "style", style: TUNING_STYLE };
        return this.specs.spec(method, { task, seed, steps, measures: "error", learningRate: this.specs.rate(method) });
      });
      this.specs.need("hypotheses", runs);
      const errors = runs.map(({ id }) => records.get(id)?.heldOut?.error);
      return errors.every((error) => error !== undefined) ? mean(errors) : undefined;
    });
    if (means.some((value) => value === undefined) && !isEstimate) throw new NotYet("all hypotheses");
    return methods
      .map((method, i) => ({ method, error: means[i] ?? 0 }))
      .sort((a, b) => a.error - b.error)
      .slice(0, FINALISTS)
      .map(({ method: { rateFactor: _, ...method } }) => ({ ...method, tunedAs: method.name }));
  }

  /** Forms of FeRA. */
  private routed(methods: readonly Method[]): Method[] {
    return methods.filter((method) => isRouted({ adapter: adapterOf(method, this.options.budget) }));
  }

  private chosen(methods: readonly Method[]): Method[] {
    const { methods: names } = this.options;
    return methods.filter(({ name }) => name === BASELINE || !names || names.includes(name));
  }

  /** Those of these names; all where there are none. */
  private some(methods: readonly Method[], names: readonly string[] | undefined): Method[] {
    return methods.filter(({ name }) => !names || names.includes(name));
  }

  private styles(styles: readonly IconStyle[]): IconStyle[] {
    const { styles: asked } = this.options;
    return styles.filter((style) => !asked || asked.includes(style));
  }
}

/** Variants are compared by their errors alone; what they are compared with has its runs in the main part. */
const measuresOfVariant = ({ name }: Method): Measures => (name === BASELINE || name === ABLATED ? "all" : "error");

/** A method at the learning rate of another. */
const atRateOf = ({ tunedAs, rateFactor = 1 }: Method, method: Method): Method => ({ ...method, tunedAs, rateFactor });

/** Trained at the baseline's rate: rates are tuned on whole styles, and differ by more than methods do. */
const atBaselineRate = (methods: readonly Method[]): Method[] =>
  methods.map((method) => (method.kind === "adapter" ? atRateOf(methodNamed(BASELINE, METHODS), method) : method));

/** Each run once, where it first stands. */
const distinct = (runs: readonly RunSpec[]): RunSpec[] => [...new Map(runs.map((run) => [run.id, run])).values()];
