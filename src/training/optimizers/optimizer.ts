// What an optimizer is: state of every parameter, and one step in main memory. The bookkeeping of all of them is here;
// options and formula of each are in a file of its own.

import type {
  AccompaniedStepSettings,
  OptimizerStepSettings,
  StepOptimizer,
} from "../../adapters/train-step-options.js";
import { ConfigError, ShapeError } from "../../errors.js";
import { DeviceResident } from "../../runtime/index.js";
import { Tensor } from "../../tensor/tensor.js";
import { checkNonNegative } from "./hyperparameters.js";
import { OptimizerState, type ParameterState, readStep, type StateSlot } from "./optimizer-state.js";

/** One parameter in a step. */
export interface ParameterUpdate<Slot extends string = string> {
  name: string;
  /** Changed in place. */
  parameter: Float32Array;
  /** Not changed. */
  gradient: Float32Array;
  shape: readonly number[];
  /** Changed in place. */
  state: ParameterState<Slot>;
  /** Factor on the learning rate, above 0. */
  factor: number;
}

/** What is done with a parameter around its update. */
export interface Accompaniment {
  /** Before: the gradient is multiplied; in place or not. */
  gradientScale: number;
  /** After: the average takes the parameter in. */
  average?: AccompaniedStepSettings["average"];
}

/** What a whole step knows. */
export interface StepRate {
  /** γ, before the factors of {@link ParameterUpdate}. */
  learningRate: number;
  /** Number of the step, the first being 1. */
  k: number;
}

/**
 * Base of the optimizers.
 *
 * @typeParam Slot - Names of what is remembered of every parameter, as PyTorch calls them.
 */
export abstract class Optimizer<Slot extends string = string> implements StepOptimizer {
  /** Where the state is, for steps that are done on a device. */
  readonly residence = new DeviceResident();
  #step = 0;
  readonly #state: OptimizerState<Slot>;

  /**
   * @param name - For messages.
   * @param lr - Learning rate γ, 0 or more.
   * @param slots - What is remembered of every parameter.
   * @param numbers - What is remembered of all together, at the start.
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  protected constructor(
    readonly name: string,
    readonly lr: number,
    readonly slots: Readonly<Record<Slot, StateSlot>>,
    numbers: Readonly<Record<string, number>> = {},
  ) {
    checkNonNegative(name, "lr", lr);
    this.#state = new OptimizerState(name, slots, { ...numbers });
  }

  /** Whether the formula looks at the parameters' shapes, so that a step needs them. */
  readonly needsShapes: boolean = false;

  /** The formula, in place, on all parameters that have a gradient and a learning rate. */
  protected abstract updateAll(updates: readonly ParameterUpdate<Slot>[], rate: StepRate): void;

  /** The formula with what goes along. Here one after another; overridden where one pass over memory does all. */
  protected updateAccompanied(
    updates: readonly ParameterUpdate<Slot>[],
    rate: StepRate,
    { gradientScale, average }: Accompaniment,
  ): void {
    if (gradientScale !== 1) for (const { gradient } of updates) scale(gradient, gradientScale);
    this.updateAll(updates, rate);
    for (const { name, parameter } of updates) {
      if (average) takeIn(average.values.get(name)!, parameter, average.decay);
    }
  }

  /** Changes the numbers of the whole optimizer, where they follow from the rates alone; before the step is counted. */
  protected advance(_rate: StepRate): void {}

  /**
   * What is delivered (saved, drawn with) when these are the parameters that are trained; themselves for most optimizers.
   *
   * @param parameters - Current ones, by name.
   */
  delivered(parameters: ReadonlyMap<string, Tensor<"float32">>): ReadonlyMap<string, Tensor<"float32">> {
    return parameters;
  }

  /** Whether {@link delivered} gives other values than are trained. */
  get deliversAverage(): boolean {
    return false;
  }

  /** Number of steps done, those of a loaded state included. */
  get stepCount(): number {
    return this.#step;
  }

  /** Names of the slots. */
  get slotNames(): readonly Slot[] {
    return this.#state.slotNames;
  }

  /**
   * Updates parameters in place. A parameter without a gradient, or with a factor of 0, is left as it is.
   *
   * Parameters and gradients may lie in shared memory. State is made at a parameter's first gradient; no other step
   * allocates. Non-finite gradients are not looked for: `gradientNorm` shows them.
   *
   * @param parameters - Under the names that `gradients` uses.
   * @param gradients - Of the same lengths; not changed, but maybe scaled in place where there is a `gradientScale`.
   * @param settings - Learning rate, factors on it and shapes; scaling and average that go along. The average takes in
   *   every parameter, those that are left as they are too.
   * @throws {ShapeError} If a gradient has no parameter, or lengths differ; nothing is changed then.
   * @throws {ConfigError} If a learning rate is negative or not finite, or shapes are missing that the formula needs.
   */
  step(
    parameters: ReadonlyMap<string, Float32Array>,
    gradients: ReadonlyMap<string, Float32Array>,
    settings: AccompaniedStepSettings = {},
  ): void {
    this.residence.syncToHost();
    const { rateOf, shapes, gradientScale = 1, average } = settings;
    const rate = this.rateOfStep(settings);
    const chosen: Omit<ParameterUpdate<Slot>, "state">[] = [];
    for (const [name, gradient] of gradients) {
      const parameter = parameters.get(name);
      if (!parameter) throw new ShapeError(`${this.name}.step: the gradient "${name}" has no parameter of that name.`);
      const shape = shapes?.get(name);
      if (!shape && this.needsShapes) {
        throw new ConfigError(`${this.name}.step: needs the shape of "${name}"; give the step shapes by name.`);
      }
      const known = shape ?? [parameter.length];
      this.#state.checkFit(name, known, gradient.length, parameter.length);
      const factor = factorOf(this.name, name, rateOf);
      if (factor > 0) chosen.push({ name, parameter, gradient, shape: known, factor });
    }
    const updates = chosen.map((each) => ({ ...each, state: this.#state.of(each.name, each.parameter, each.shape) }));
    this.updateAccompanied(updates, rate, { gradientScale, average });
    const updated = new Set(updates.map(({ name }) => name));
    for (const [name, values] of average?.values ?? []) {
      if (!updated.has(name)) takeIn(values, parameters.get(name)!, average!.decay);
    }
    this.#count(rate);
  }

  /** Counts a step that was done elsewhere; `step` counts itself. */
  countStep(settings: Pick<OptimizerStepSettings, "learningRate"> = {}): void {
    this.#count(this.rateOfStep(settings));
  }

  /**
   * The state of parameters by slot, to be changed in place by steps that are done elsewhere.
   *
   * @throws {ShapeError} If the optimizer's state has other sizes.
   */
  stateOf(
    parameters: ReadonlyMap<string, Pick<Tensor<"float32">, "data" | "shape">>,
  ): Map<string, ParameterState<Slot>> {
    this.residence.syncToHost();
    return new Map([...parameters].map(([name, { data, shape }]) => [name, this.#state.of(name, data, shape)]));
  }

  /**
   * The state to go on from: `step` (int64, scalar), numbers of the whole optimizer (float32 `[2]`, a number and what its
   * rounding left), and for every parameter met so far `NAME.SLOT` (flat).
   *
   * @returns Copies.
   */
  stateDict(): Map<string, Tensor> {
    this.residence.syncToHost();
    const state = new Map<string, Tensor>([["step", new Tensor("int64", [], BigInt64Array.of(BigInt(this.#step)))]]);
    this.#state.write(state);
    return state;
  }

  /**
   * Replaces the state by one that `stateDict` gave. Tensors of any shape are taken; they must fit their parameters at
   * the next step.
   *
   * @throws {TrainingError} If a tensor is missing, unexpected, of a wrong dtype, or not finite; nothing is changed then.
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    const where = `${this.name}.loadStateDict`;
    const step = readStep(where, state.get("step"));
    // What a device holds is outdated by what is loaded; where that is refused, it still counts.
    this.residence.syncToHost();
    this.#state.read(where, state);
    this.#step = step;
  }

  /** @throws {ConfigError} If the learning rate is negative or not finite. */
  protected rateOfStep({ learningRate = this.lr }: Pick<OptimizerStepSettings, "learningRate">): StepRate {
    checkNonNegative(this.name, "learningRate", learningRate);
    return { learningRate, k: this.#step + 1 };
  }

  /** A number of the whole optimizer. */
  protected number(name: string): number {
    return this.#state.number(name);
  }

  /** Keeps a number of the whole optimizer, to 48 bits. */
  protected setNumber(name: string, value: number): void {
    this.#state.set(name, value);
  }

  /** The state of a parameter that was met. */
  protected stateOfKnown(name: string, parameter: Tensor<"float32">): ParameterState<Slot> | undefined {
    this.residence.syncToHost();
    return this.#state.has(name) ? this.#state.of(name, parameter.data, parameter.shape) : undefined;
  }

  #count(rate: StepRate): void {
    this.advance(rate);
    this.#step++;
  }
}

/** values ← values · factor. */
export function scale(values: Float32Array, factor: number): void {
  for (let i = 0; i < values.length; i++) values[i] = values[i]! * factor;
}

/** average ← parameter + decay·(average − parameter). */
export function takeIn(average: Float32Array, parameter: Float32Array, decay: number): void {
  for (let i = 0; i < average.length; i++) {
    const value = parameter[i]!;
    average[i] = value + decay * (average[i]! - value);
  }
}

/** The factor on a parameter's learning rate. @throws {ConfigError} If it is negative or not finite. */
export function factorOf(where: string, name: string, rateOf: ((name: string) => number) | undefined): number {
  const factor = rateOf?.(name) ?? 1;
  checkNonNegative(where, `the learning-rate factor of "${name}"`, factor);
  return factor;
}
