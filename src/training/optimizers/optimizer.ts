// What an optimizer is: state of every parameter, one step in main memory, and the same step as graph nodes. The
// bookkeeping of all of them is here; options, formula and graph form of each are in a file of its own.

import type { StepOptimizer } from "../../adapters/train-step-options.js";
import { ConfigError, ShapeError, TrainingError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import { DeviceResident } from "../../runtime/index.js";
import { allFinite, Tensor } from "../../tensor/tensor.js";

/** What an optimizer remembers of a parameter under one name, as many values as the parameter has, zeros at first. */
export interface StateSlot {
  /** Whether a value below 0 is a fault. Default false. */
  nonNegative?: boolean;
}

/** One step as part of a graph. P values of all parameters, packed into one vector. */
export interface GraphStep<Slot extends string = string> {
  /** `[P]`. */
  parameters: Value;
  /** `[P]` each, by slot. */
  state: Readonly<Record<Slot, Value>>;
}

/**
 * Base of the optimizers.
 *
 * @typeParam Slot - Names of what is remembered of every parameter, as PyTorch calls them.
 * @typeParam Coefficient - Names of the numbers that a step depends on.
 */
export abstract class Optimizer<Slot extends string = string, Coefficient extends string = string>
  implements StepOptimizer
{
  /** Where the state is, for steps that are done on a device. */
  readonly residence = new DeviceResident();
  #step = 0;
  readonly #state = new Map<string, Record<Slot, Float32Array>>();

  /**
   * @param name - For messages.
   * @param lr - Learning rate γ, 0 or more.
   * @param slots - What is remembered of every parameter.
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  protected constructor(
    readonly name: string,
    readonly lr: number,
    readonly slots: Readonly<Record<Slot, StateSlot>>,
  ) {
    checkNonNegative(name, "lr", lr);
  }

  /** The numbers of step k, the first being 1, at learning rate γ; always the same names in the same order. */
  protected abstract coefficientsOf(learningRate: number, k: number): Record<Coefficient, number>;

  /** The formula on one parameter, in place. The gradient is not changed. */
  protected abstract update(
    parameter: Float32Array,
    gradient: Float32Array,
    state: Readonly<Record<Slot, Float32Array>>,
    coefficients: Readonly<Record<Coefficient, number>>,
  ): void;

  /**
   * The formula as graph nodes, in float32 throughout.
   *
   * @param before - Parameters and state before the step.
   * @param gradient - `[P]`.
   * @param coefficients - `[1]` each, by name.
   * @returns Parameters and state after it.
   */
  abstract addToGraph(
    before: GraphStep<Slot>,
    gradient: Value,
    coefficients: Readonly<Record<Coefficient, Value>>,
  ): GraphStep<Slot>;

  /** Number of steps done, those of a loaded state included. */
  get stepCount(): number {
    return this.#step;
  }

  /** Names of the slots. */
  get slotNames(): readonly Slot[] {
    return Object.keys(this.slots) as Slot[];
  }

  /** Names of {@link coefficients}, in their order. */
  get coefficientNames(): readonly Coefficient[] {
    return Object.keys(this.coefficients()) as Coefficient[];
  }

  /**
   * Updates parameters in place. A parameter without a gradient is left as it is.
   *
   * Parameters and gradients may lie in shared memory. State is made at a parameter's first gradient; no other step
   * allocates. Non-finite gradients are not looked for: `gradientNorm` shows them.
   *
   * @param parameters - Under the names that `gradients` uses.
   * @param gradients - Of the same lengths; not changed.
   * @param options - `learningRate` replaces `lr` for this step.
   * @throws {ShapeError} If a gradient has no parameter, or lengths differ; nothing is changed then.
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  step(
    parameters: ReadonlyMap<string, Float32Array>,
    gradients: ReadonlyMap<string, Float32Array>,
    { learningRate = this.lr }: { learningRate?: number } = {},
  ): void {
    this.residence.syncToHost();
    for (const [name, gradient] of gradients) this.#check(name, parameters.get(name), gradient);
    const coefficients = this.coefficients({ learningRate });
    this.countStep();
    for (const [name, gradient] of gradients) {
      const parameter = parameters.get(name)!;
      this.update(parameter, gradient, this.#stateOf(name, parameter.length), coefficients);
    }
  }

  /**
   * The numbers of the next step.
   *
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  coefficients({ learningRate = this.lr }: { learningRate?: number } = {}): Record<Coefficient, number> {
    checkNonNegative(this.name, "learningRate", learningRate);
    return this.coefficientsOf(learningRate, this.#step + 1);
  }

  /** Counts a step that was done elsewhere; `step` counts itself. */
  countStep(): void {
    this.#step++;
  }

  /**
   * The state of parameters by slot, to be changed in place by steps that are done elsewhere.
   *
   * @param sizes - Number of elements by parameter.
   * @throws {ShapeError} If the optimizer's state has other sizes.
   */
  stateOf(sizes: ReadonlyMap<string, number>): Map<string, Readonly<Record<Slot, Float32Array>>> {
    this.residence.syncToHost();
    const result = new Map<string, Readonly<Record<Slot, Float32Array>>>();
    for (const [name, size] of sizes) {
      const own = this.#sizeOf(name) ?? size;
      if (own !== size) {
        throw new ShapeError(
          `${this.name}: "${name}" must have one size; got parameter ${size}, optimizer state ${own}.`,
        );
      }
      result.set(name, this.#stateOf(name, size));
    }
    return result;
  }

  /**
   * The state to go on from: `step` (int64, scalar), and for every parameter met so far `NAME.SLOT` (float32, flat).
   *
   * @returns Copies.
   */
  stateDict(): Map<string, Tensor> {
    this.residence.syncToHost();
    const state = new Map<string, Tensor>([["step", new Tensor("int64", [], BigInt64Array.of(BigInt(this.#step)))]]);
    for (const [name, values] of this.#state) {
      for (const slot of this.slotNames) {
        const value = values[slot];
        state.set(`${name}.${slot}`, new Tensor("float32", [value.length], value.slice()));
      }
    }
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
    const loaded = new Map<string, Record<Slot, Float32Array>>();
    for (const key of state.keys()) {
      if (key === "step") continue;
      const slot = this.slotNames.find((name) => key.endsWith(`.${name}`) && key.length > name.length + 1);
      if (slot === undefined) {
        const known = listed(["step", ...this.slotNames.map((name) => `NAME.${name}`)]);
        throw new TrainingError(`${where}: unexpected tensor "${key}"; a state holds ${known}.`);
      }
      const name = key.slice(0, -slot.length - 1);
      if (!loaded.has(name)) loaded.set(name, this.#read(where, state, name));
    }
    this.residence.syncToHost();
    this.#step = step;
    this.#state.clear();
    for (const [name, values] of loaded) this.#state.set(name, values);
  }

  #read(where: string, state: ReadonlyMap<string, Tensor>, name: string): Record<Slot, Float32Array> {
    const values = bySlot(this.slotNames, (slot) => readValues(where, state, `${name}.${slot}`));
    const sizes = this.slotNames.map((slot) => values[slot].length);
    if (sizes.some((size) => size !== sizes[0])) {
      throw new TrainingError(`${where}: the state of "${name}" must have the same size; got ${listed(sizes)}.`);
    }
    for (const slot of this.slotNames) {
      if (this.slots[slot].nonNegative && values[slot].some((value) => value < 0)) {
        throw new TrainingError(`${where}: "${name}.${slot}" must not be negative.`);
      }
    }
    return values;
  }

  #stateOf(name: string, size: number): Record<Slot, Float32Array> {
    let state = this.#state.get(name);
    if (!state) {
      state = bySlot(this.slotNames, () => new Float32Array(size));
      this.#state.set(name, state);
    }
    return state;
  }

  #sizeOf(name: string): number | undefined {
    const state = this.#state.get(name);
    return state && this.slotNames.map((slot) => state[slot].length)[0];
  }

  #check(name: string, parameter: Float32Array | undefined, gradient: Float32Array): void {
    if (!parameter) throw new ShapeError(`${this.name}.step: the gradient "${name}" has no parameter of that name.`);
    const size = this.#sizeOf(name) ?? parameter.length;
    if (gradient.length !== parameter.length || size !== parameter.length) {
      throw new ShapeError(
        `${this.name}.step: "${name}" must have one size; got parameter ${parameter.length}, ` +
          `gradient ${gradient.length}, optimizer state ${size}.`,
      );
    }
  }
}

/** Whether an optimizer is one of this library, so that its steps can be done on a device too. */
export const hasGraphForm = (optimizer: StepOptimizer | undefined): optimizer is Optimizer =>
  optimizer instanceof Optimizer;

/** @throws {ConfigError} Unless a hyperparameter is a finite number, 0 or more. */
export function checkNonNegative(optimizer: string, name: string, value: number): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new ConfigError(`${optimizer}: ${name} must be a finite number, 0 or more; got ${String(value)}.`);
  }
}

/** Two decay rates of averages. @throws {ConfigError} Unless both lie in [0, 1). */
export function checkBetas(optimizer: string, betas: readonly [number, number]): readonly [number, number] {
  if (!Array.isArray(betas) || betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
    throw new ConfigError(`${optimizer}: betas must be two numbers in [0, 1); got ${JSON.stringify(betas)}.`);
  }
  return [betas[0]!, betas[1]!];
}

function bySlot<Slot extends string, T>(slots: readonly Slot[], make: (slot: Slot) => T): Record<Slot, T> {
  return Object.fromEntries(slots.map((slot) => [slot, make(slot)])) as Record<Slot, T>;
}

/** "a, b and c". */
const listed = (items: readonly (string | number)[]): string =>
  items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;

function readStep(where: string, value: Tensor | undefined): number {
  if (value?.size !== 1 || (value.dtype !== "int64" && value.dtype !== "int32" && value.dtype !== "float32")) {
    const came = value ? `${value.dtype} [${value.shape.join(",")}]` : "nothing";
    throw new TrainingError(`${where}: "step" must be one int64, int32 or float32 number; got ${came}.`);
  }
  const step = Number(value.data[0]);
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new TrainingError(`${where}: "step" must be an integer, 0 or more; got ${step}.`);
  }
  return step;
}

function readValues(where: string, state: ReadonlyMap<string, Tensor>, key: string): Float32Array {
  const value = state.get(key);
  if (value?.dtype !== "float32") {
    throw new TrainingError(`${where}: "${key}" must be a float32 tensor; got ${value ? value.dtype : "nothing"}.`);
  }
  const data = (value.data as Float32Array).slice();
  if (!allFinite(data)) throw new TrainingError(`${where}: "${key}" holds values that are not finite.`);
  return data;
}

/** @throws {ConfigError} If an option was given that the optimizer does not have. */
export function refuseUnknown(optimizer: string, unknown: Readonly<Record<string, unknown>>): void {
  const [name] = Object.keys(unknown);
  if (name === undefined) return;
  const advice = name === "learningRate" ? "; write lr" : "";
  throw new ConfigError(`${optimizer}: there is no option "${name}"${advice}.`);
}
