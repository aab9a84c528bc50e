// Which runs the study has: parts, each with its methods, tasks and seeds. A pure function of what is asked for and of what has
// been found so far: learning rates, equal times and finalists follow from runs, so that later parts wait for earlier ones.

import type { IconStyle } from "../training/data/icons.js";
import { mean, median } from "./averages.js";
import type { Budget } from "./budget.js";
import { HYPOTHESES } from "./hypotheses.js";
import { ABLATED, ABLATIONS, adapterOf, BASELINE, METHODS, type Method, methodNamed } from "./methods.js";
import { askAll, NotYet } from "./not-yet.js";
import { PARTS, type Part } from "./parts.js";
import { PRESETS, type Preset, type PresetName } from "./presets.js";
import { isRouted, type Measures, type RunRecord, type RunSpec, runSpec, type StudySettings } from "./records.js";
import { ABLATION_STYLE, SUBJECTS, type Subject, type Task, TEST_STYLES, TUNING_STYLE } from "./tasks.js";

/** Timings of each method. */
const REPEATS_OF_SPEED = 3;
const SPEED_STEPS = 24;
const FEW = [8, 32, 128] as const;
const FINALISTS = 2;
/** Trained longer, to see whether it stays as it is. */
const LONG_METHODS = [BASELINE, "fera", "fera-plain", "fera-energies", "fera-timestep"];
const LONG_FACTOR = 4;
/** Compared on other styles after that. */
const LONG_FINALISTS = ["fera-energies", "fera-timestep"];
/** Of those that a better rate is looked for with: rates differ by more than seeds do. */
const LONG_RATE_SEEDS = 2;
/** Of the steps, where not as many fit into LoRA's time; to count until it is known. */
const GUESSED_SHARE = 0.9;
/** Of the steps: few drawings are learned sooner, and by heart after that. */
const FEW_SHARE = 1 / 2;
const SUBJECT_SHARE = 1 / 3;

/** What a study is asked for. */
export interface PlanOptions {
  preset: PresetName;
  parts: readonly Part[];
  seeds: number;
  steps: number;
  /** False takes one learning rate for all, untuned. */
  isTuned: boolean;
  /** Only these methods, beside the one that all are compared with. */
  methods?: readonly string[] | undefined;
  /** Only these of the styles. */
  styles?: readonly IconStyle[] | undefined;
  budget: Budget;
  settings: StudySettings;
  /** What has been found, by id. */
  records: ReadonlyMap<string, RunRecord>;
  /** Takes untuned rates, equal steps and the first hypotheses where they are not known yet: to count. Default false. */
  isEstimate?: boolean;
}

/** What there is to run. */
export interface Plan {
  /** Each once, in order; some may have records. */
  runs: RunSpec[];
  /** Those that a part's tables are made of. */
  byPart: ReadonlyMap<Part, readonly RunSpec[]>;
  /** Parts of which some runs are not known yet, and what they wait for. */
  waiting: { part: Part; for: string }[];
}

/** Every method that any part has. */
export const ALL_METHODS: readonly Method[] = [
  ...METHODS,
  ...Object.values(ABLATIONS).flat(),
  ...HYPOTHESES.map(({ method }) => method),
];

/** The plan as far as it is known. */
export function makePlan(options: PlanOptions): Plan {
  return new Planner(options).plan();
}

class Planner {
  private readonly needed = new Map<Part, Map<string, RunSpec>>();
  private readonly rates = new Map<string, number>();
  private readonly preset: Preset;
  private readonly withoutLimit: StudySettings;

  constructor(private readonly options: PlanOptions) {
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
    const all = [...[...this.needed.values()].flatMap((runs) => [...runs.values()]), ...[...byPart.values()].flat()];
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
          .flatMap((method) => this.tries(method).map((run) => () => run));
      case "speed":
        return main
          .filter(({ kind }) => kind !== "none")
          .flatMap((method) => this.timed(method).map((run) => () => run));
      case "main":
        return this.each(main, styles.map(style), "all", () => steps);
      case "same-rate":
        return this.sameRates(main, tested.map(style));
      case "all-names":
        return [...this.runsOf("main"), ...this.runsOf("same-rate")].map((make) => () => this.onAllNames(make()));
      case "time":
        return this.each(
          this.some(main, this.preset.timeMethods).filter(({ kind }) => kind !== "none"),
          tested.map(style),
          "all",
          (method) => this.equalTime(method),
        );
      case "long": {
        const tasks = this.styles([ABLATION_STYLE]).map(style);
        const compared = this.some(main, LONG_METHODS);
        // A rate that was tuned for few steps may be too high for many, for one method sooner than for another.
        const atEachRate = compared.flatMap((tuned) => compared.map((method) => atRateOf(tuned, method)));
        return [...this.each(compared, tasks, "all", () => steps), ...this.longer(atEachRate, tasks, "all")];
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
            ...this.each(others, tasks, "error", (method) => this.equalTime(method, LONG_FACTOR * steps)),
          ];
        });
      }
      case "few-shot": {
        const tasks = tested.flatMap((name) =>
          FEW.map((drawings): Task => ({ kind: "few-shot", style: name, drawings })),
        );
        const methods = atBaselineRate(this.some(main, this.preset.fewMethods));
        return this.each(methods, tasks, "all", () => Math.ceil(FEW_SHARE * steps));
      }
      case "subject": {
        const subjects = Object.keys(SUBJECTS) as Subject[];
        const tasks = tested.flatMap((name) =>
          subjects.map((subject): Task => ({ kind: "subject", style: name, subject })),
        );
        const methods = atBaselineRate(this.some(main, this.preset.subjectMethods));
        return this.each(methods, tasks, "all", () => Math.ceil(SUBJECT_SHARE * steps));
      }
      case "hypotheses": {
        const tried = [methodNamed(BASELINE, METHODS), ...this.chosen(HYPOTHESES.map(({ method }) => method))];
        return this.each(tried, [style(TUNING_STYLE)], measuresOfVariant, () => steps);
      }
      case "confirm":
        return this.ofFinalists((finalists) => [
          ...this.each([methodNamed(BASELINE, METHODS), ...finalists], tested.map(style), "all", () => steps),
          ...this.each(finalists, tested.map(style), "all", (method) => this.equalTime(method)),
        ]);
      default: {
        const variants = [methodNamed(ABLATED, METHODS), ...this.chosen(ABLATIONS[part])];
        return this.each(variants, this.styles([ABLATION_STYLE]).map(style), measuresOfVariant, () => steps);
      }
    }
  }

  /** Seeds outermost, so that what was cut has all methods of the first ones. */
  private each(
    methods: readonly Method[],
    tasks: readonly Task[],
    measures: Measures | ((method: Method) => Measures),
    stepsOf: (method: Method) => number,
  ): (() => RunSpec)[] {
    const measuresOf = typeof measures === "string" ? () => measures : measures;
    return Array.from({ length: this.options.seeds }, (_, seed) => seed).flatMap((seed) =>
      tasks.flatMap((task) =>
        methods.map((method) => () => {
          const steps = method.kind === "none" ? 0 : stepsOf(method);
          const learningRate = this.rate(method);
          return this.spec(method, { task, seed, steps, measures: measuresOf(method), learningRate });
        }),
      ),
    );
  }

  /** As many steps as the longer trainings have. */
  private longer(methods: readonly Method[], tasks: readonly Task[], measures: Measures): (() => RunSpec)[] {
    return this.each(methods, tasks, measures, () => LONG_FACTOR * this.options.steps);
  }

  /** The baseline at the rates of all that are routed; of the finalists' too where they are asked for. */
  private sameRates(methods: readonly Method[], tasks: readonly Task[]): (() => RunSpec)[] {
    const { steps, parts, budget } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const atRatesOf = (tuned: readonly Method[]) => {
      const runs = tuned.map((each) => atRateOf(each, baseline));
      return this.each(runs, tasks, "all", () => steps);
    };
    return [
      ...atRatesOf(methods.filter((method) => isRouted({ adapter: adapterOf(method, budget) }))),
      ...(parts.includes("confirm") ? this.ofFinalists(atRatesOf) : []),
    ];
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

  private spec(method: Method, run: Pick<RunSpec, "task" | "seed" | "steps" | "measures" | "learningRate">): RunSpec {
    const { budget, settings } = this.options;
    return runSpec({
      ...{ method: method.name, ...run, settings, routerLr: method.routerLr },
      adapter: adapterOf(method, budget),
    });
  }

  /** The run measured on every held-out name, by its errors alone where it is not measured on all of them anyway. */
  private onAllNames({ id: _, ...run }: RunSpec): RunSpec {
    const { limit } = run.settings;
    return runSpec(limit === undefined ? run : { ...run, measures: "error", settings: this.withoutLimit });
  }

  private rate(method: Method): number {
    // A finalist has a rate of its own, beside the one that it was tried with.
    const key = `${method.name} ${method.tunedAs} ${method.rateFactor}`;
    const known = this.rates.get(key) ?? this.tunedRate(method);
    this.rates.set(key, known);
    return known;
  }

  private tunedRate(method: Method): number {
    if (method.kind === "none") return 0;
    const factor = method.rateFactor ?? 1;
    const own = ALL_METHODS.find(({ name }) => name === method.tunedAs)!;
    const untuned = ratesOf(own, this.options.preset)[this.preset.untuned]!;
    if (!this.options.isTuned) return untuned * factor;
    const tries = this.need("rates", this.tries({ ...own, tunedAs: own.name }));
    const errors = tries.map(({ id }) => this.options.records.get(id)?.heldOut?.error);
    if (errors.some((error) => error === undefined)) {
      if (this.options.isEstimate) return untuned * factor;
      throw new NotYet("learning rates");
    }
    return bestRate(tries, errors as number[]) * factor;
  }

  private tries(method: Method): RunSpec[] {
    const { steps, preset } = this.options;
    const task: Task = { kind: "style", style: TUNING_STYLE };
    return ratesOf(method, preset).map((learningRate) =>
      this.spec(method, { task, seed: 0, steps, measures: "error", learningRate }),
    );
  }

  private timed(method: Method): RunSpec[] {
    const task: Task = { kind: "style", style: TUNING_STYLE };
    const learningRate = ratesOf(method, this.options.preset)[0]!;
    return Array.from({ length: REPEATS_OF_SPEED }, (_, seed) =>
      this.spec(method, { task, seed, steps: SPEED_STEPS, measures: "speed", learningRate }),
    );
  }

  /** Of the methods that were trained longer, the one at whose learning rate the baseline came out best. */
  private bestOfLong(): Method {
    const { records, isEstimate } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const tried = askAll(this.some(this.chosen(METHODS), LONG_METHODS), (tuned) => {
      const task: Task = { kind: "style", style: ABLATION_STYLE };
      const runs = this.need(
        "long",
        this.longer([atRateOf(tuned, baseline)], [task], "all").map((make) => make()),
      );
      const errors = runs.map(({ id }) => records.get(id)?.heldOut?.error);
      return { tuned, error: errors.every((error) => error !== undefined) ? mean(errors) : undefined };
    });
    if (tried.some(({ error }) => error === undefined) && !isEstimate) throw new NotYet("longer training");
    return tried.sort((a, b) => (a.error ?? 0) - (b.error ?? 0))[0]!.tuned;
  }

  /**
   * From a rate on, halves or doubles it as long as the baseline comes out better on the very tasks that others are compared with
   * it on, and at last tries one between: what is ahead of it there is not ahead for the rate's sake.
   *
   * @returns A method that has the rate, and the baseline's runs at all rates that were tried.
   */
  private bestRateFor(tasks: readonly Task[], first: Method): { best: Method; tried: RunSpec[] } {
    const { records, isEstimate } = this.options;
    const baseline = methodNamed(BASELINE, METHODS);
    const tried: RunSpec[] = [];
    const errorAt = (rate: Method): number | undefined => {
      const runs = this.longer([atRateOf(rate, baseline)], tasks, "error")
        .map((make) => make())
        .filter(({ seed }) => seed < LONG_RATE_SEEDS);
      tried.push(...this.need("long-confirm", runs));
      const errors = runs.map(({ id }) => records.get(id)?.heldOut?.error);
      return errors.every((error) => error !== undefined) ? mean(errors) : undefined;
    };
    const lowestFirst = (rates: readonly Method[]): Method[] => {
      const errors = rates.map((rate) => ({ rate, error: errorAt(rate) ?? Number.POSITIVE_INFINITY }));
      if (errors.some(({ error }) => !Number.isFinite(error)) && !isEstimate) {
        throw new NotYet("the rate that suits longer training");
      }
      return errors.sort((a, b) => (a.error === b.error ? 0 : a.error - b.error)).map(({ rate }) => rate);
    };
    const factorOf = ({ rateFactor = 1 }: Method): number => rateFactor;
    const scaled = (method: Method, by: number): Method => ({ ...method, rateFactor: factorOf(method) * by });
    const neighbours = (method: Method) => lowestFirst([method, scaled(method, 1 / 2), scaled(method, 2)]);
    let best = first;
    let ordered = neighbours(best);
    while (ordered[0] !== best) {
      best = ordered[0]!;
      ordered = neighbours(best);
    }
    // About halfway to the better neighbour.
    const between = scaled(best, factorOf(ordered[1]!) < factorOf(best) ? 0.7 : 1.4);
    return { best: lowestFirst([best, between])[0]!, tried: distinct(tried) };
  }

  /** The steps that the method does in the time of the baseline's. */
  private equalTime(method: Method, steps = this.options.steps): number {
    if (method.name === BASELINE) return steps;
    const [baseline, own] = [methodNamed(BASELINE, METHODS), method].map((each) => {
      const runs = this.need("speed", this.timed(each));
      // Of the processors, so that what else the machine does takes no steps from a method.
      const seconds = runs.map(({ id }) => this.options.records.get(id)?.cpuSecondsPerStep);
      return seconds.every((value) => value !== undefined) ? median(seconds) : undefined;
    });
    if (baseline === undefined || own === undefined) {
      if (this.options.isEstimate) return Math.ceil(GUESSED_SHARE * steps);
      throw new NotYet("seconds a step");
    }
    return Math.max(1, Math.round((steps * baseline) / own));
  }

  /** The hypotheses with the lowest error on the tuning style, which then have as many tries of a rate as all methods. */
  private finalists(): readonly Method[] {
    const { seeds, steps, records, isEstimate } = this.options;
    const methods = this.chosen(HYPOTHESES.map(({ method }) => method));
    const means = methods.map((method) => {
      const runs = Array.from({ length: seeds }, (_, seed) => {
        const task: Task = { kind: "style", style: TUNING_STYLE };
        return this.spec(method, { task, seed, steps, measures: "error", learningRate: this.rate(method) });
      });
      this.need("hypotheses", runs);
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

  private need(part: Part, runs: RunSpec[]): RunSpec[] {
    const known = this.needed.get(part) ?? new Map<string, RunSpec>();
    this.needed.set(part, known);
    for (const run of runs) known.set(run.id, run);
    return runs;
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

/** The learning rates that are tried for a method. */
export const ratesOf = ({ kind }: Pick<Method, "kind">, preset: PresetName): readonly number[] =>
  PRESETS[preset].rates[kind === "full" ? "full" : "adapter"];

/** Variants are compared by their errors alone; what they are compared with has its runs in the main part. */
const measuresOfVariant = ({ name }: Method): Measures => (name === BASELINE || name === ABLATED ? "all" : "error");

/** A method at the learning rate of another. */
const atRateOf = ({ tunedAs, rateFactor = 1 }: Method, method: Method): Method => ({ ...method, tunedAs, rateFactor });

/** Trained at the baseline's rate: rates are tuned on whole styles, and differ by more than methods do. */
const atBaselineRate = (methods: readonly Method[]): Method[] =>
  methods.map((method) => (method.kind === "adapter" ? atRateOf(methodNamed(BASELINE, METHODS), method) : method));

function bestRate(tries: readonly RunSpec[], errors: readonly number[]): number {
  return tries[errors.indexOf(Math.min(...errors))]!.learningRate;
}

/** Each run once, where it first stands. */
const distinct = (runs: readonly RunSpec[]): RunSpec[] => [...new Map(runs.map((run) => [run.id, run])).values()];
