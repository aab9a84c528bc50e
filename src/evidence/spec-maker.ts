// Specs of the study's runs: methods on tasks, at rates and with steps that follow from what was found so far.

import type { IconStyle } from "../training/data/icons.js";
import { ALL_METHODS } from "./all-methods.js";
import { median } from "./averages.js";
import type { Budget } from "./budget.js";
import { adapterOf, BASELINE, METHODS, type Method, methodNamed } from "./methods.js";
import { NotYet } from "./not-yet.js";
import type { Part } from "./parts.js";
import { PRESETS, type PresetName } from "./presets.js";
import { type Measures, type RunRecord, type RunSpec, runSpec, type StudySettings } from "./records.js";
import { type Task, TUNING_STYLE } from "./tasks.js";

/** Timings of each method. */
const REPEATS_OF_SPEED = 3;
const SPEED_STEPS = 24;
/** Of the steps, where not as many fit into LoRA's time; to count until it is known. */
const GUESSED_SHARE = 0.9;

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

/** Makes specs, and keeps what they wait for. */
export class SpecMaker {
  /** Runs that others follow from, by the part that has them, once each. */
  readonly needed = new Map<Part, Map<string, RunSpec>>();
  private readonly rates = new Map<string, number>();

  constructor(private readonly options: PlanOptions) {}

  /** Makers of a spec for each method, task and seed; seeds outermost, so that what was cut has all methods of the first ones. */
  each(
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

  /** The method's spec with its adapter and the study's settings. */
  spec(method: Method, run: Pick<RunSpec, "task" | "seed" | "steps" | "measures" | "learningRate">): RunSpec {
    const { budget, settings } = this.options;
    return runSpec({
      ...{ method: method.name, ...run, settings, routerLr: method.routerLr },
      adapter: adapterOf(method, budget),
    });
  }

  /** The learning rate that a method is trained with. @throws {NotYet} If what it follows from has not been run. */
  rate(method: Method): number {
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
    const untuned = ratesOf(own, this.options.preset)[PRESETS[this.options.preset].untuned]!;
    if (!this.options.isTuned) return untuned * factor;
    const tries = this.need("rates", this.tries({ ...own, tunedAs: own.name }));
    const errors = tries.map(({ id }) => this.options.records.get(id)?.heldOut?.error);
    if (errors.some((error) => error === undefined)) {
      if (this.options.isEstimate) return untuned * factor;
      throw new NotYet("learning rates");
    }
    return bestRate(tries, errors as number[]) * factor;
  }

  /** One run for each learning rate that is tried for a method. */
  tries(method: Method): RunSpec[] {
    const { steps, preset } = this.options;
    const task: Task = { kind: "style", style: TUNING_STYLE };
    return ratesOf(method, preset).map((learningRate) =>
      this.spec(method, { task, seed: 0, steps, measures: "error", learningRate }),
    );
  }

  /** The method's timings. */
  timed(method: Method): RunSpec[] {
    const task: Task = { kind: "style", style: TUNING_STYLE };
    const learningRate = ratesOf(method, this.options.preset)[0]!;
    return Array.from({ length: REPEATS_OF_SPEED }, (_, seed) =>
      this.spec(method, { task, seed, steps: SPEED_STEPS, measures: "speed", learningRate }),
    );
  }

  /** The steps that the method does in the time of the baseline's. @throws {NotYet} If either has not been timed. */
  equalTime(method: Method, steps = this.options.steps): number {
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

  /** Keeps runs that others follow from. @returns The same. */
  need(part: Part, runs: RunSpec[]): RunSpec[] {
    const known = this.needed.get(part) ?? new Map<string, RunSpec>();
    this.needed.set(part, known);
    for (const run of runs) known.set(run.id, run);
    return runs;
  }
}

/** The learning rates that are tried for a method. */
export const ratesOf = ({ kind }: Pick<Method, "kind">, preset: PresetName): readonly number[] =>
  PRESETS[preset].rates[kind === "full" ? "full" : "adapter"];

function bestRate(tries: readonly RunSpec[], errors: readonly number[]): number {
  return tries[errors.indexOf(Math.min(...errors))]!.learningRate;
}
