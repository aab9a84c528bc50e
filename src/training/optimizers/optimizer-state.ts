// What an optimizer remembers: arrays by parameter and slot, and numbers of its own; into a state dict and out of it.

import { ShapeError, TrainingError } from "../../errors.js";
import { allFinite, sizeOf, Tensor } from "../../tensor/tensor.js";

/** Float values, or codes of four bytes each. */
export type StateArray = Float32Array | Int32Array;

/** What an optimizer remembers of a parameter under one name. */
export interface StateSlot {
  /** Whether a value below 0 is a fault. Default false. */
  nonNegative?: boolean;
  /** int32 holds codes, four to an element. Default float32. */
  dtype?: "float32" | "int32";
  /** How many elements for a parameter of that shape; 0 where it has none. As many as the parameter by default. */
  size?: (shape: readonly number[]) => number;
  /** Where it starts: at zeros, or at the parameter as its first step finds it. Default zeros. */
  start?: "zeros" | "parameter";
}

/** A parameter's state: only the slots that its shape has. */
export type ParameterState<Slot extends string = string> = Readonly<Record<Slot, StateArray>>;

/** State of every parameter that was met so far, and numbers of the whole optimizer. */
export class OptimizerState<Slot extends string> {
  private arrays = new Map<string, Partial<Record<Slot, StateArray>>>();
  readonly slotNames: readonly Slot[];

  /**
   * @param name - The optimizer's, for messages.
   * @param numbers - Its own numbers at the start, to be changed through {@link set}.
   */
  constructor(
    private readonly name: string,
    private readonly slots: Readonly<Record<Slot, StateSlot>>,
    private readonly numbers: Record<string, number>,
  ) {
    this.slotNames = Object.keys(slots) as Slot[];
  }

  /** A number of the whole optimizer. */
  number(name: string): number {
    return this.numbers[name]!;
  }

  /** Keeps a number to 48 bits, which is what a state dict holds of it: a resumed run goes on with the same. */
  set(name: string, value: number): void {
    const [high, low] = halves(value);
    this.numbers[name] = high + low;
  }

  /** Whether a parameter has state. */
  has(name: string): boolean {
    return this.arrays.has(name);
  }

  /**
   * The state of a parameter, made where there is none yet.
   *
   * @throws {ShapeError} If there is one of another size.
   */
  of(name: string, parameter: Float32Array, shape: readonly number[]): ParameterState<Slot> {
    const known = this.arrays.get(name);
    if (known) {
      this.check(name, known, shape);
      return known as ParameterState<Slot>;
    }
    const made: Partial<Record<Slot, StateArray>> = {};
    for (const slot of this.slotNames) {
      const { start = "zeros", dtype = "float32" } = this.slots[slot];
      const size = this.sizeOf(slot, shape);
      if (size === 0 && parameter.length > 0) continue;
      made[slot] = dtype === "int32" ? new Int32Array(size) : new Float32Array(size);
      if (start === "parameter") made[slot].set(parameter);
    }
    this.arrays.set(name, made);
    return made as ParameterState<Slot>;
  }

  /**
   * Says before anything is changed that a parameter's state does not fit.
   *
   * @throws {ShapeError}
   */
  checkFit(name: string, shape: readonly number[], gradientSize: number, parameterSize: number): void {
    const known = this.arrays.get(name);
    if (gradientSize === parameterSize && sizeOf(shape) === parameterSize) {
      if (known) this.check(name, known, shape, `gradient ${gradientSize}, `);
      return;
    }
    const own = known ? this.ownSize(known) : parameterSize;
    throw new ShapeError(
      `${this.name}.step: "${name}" must have one size; got parameter ${parameterSize}, gradient ${gradientSize}, ` +
        `${sizeOf(shape) === parameterSize ? "" : `shape [${shape.join(",")}], `}optimizer state ${own}.`,
    );
  }

  /** Copies, by `NAME.SLOT` and the numbers' names. */
  write(into: Map<string, Tensor>): void {
    for (const [name, value] of Object.entries(this.numbers)) {
      into.set(name, new Tensor("float32", [2], Float32Array.from(halves(value))));
    }
    for (const [name, state] of this.arrays) {
      for (const slot of this.slotNames) {
        const value = state[slot];
        if (value === undefined) continue;
        const dtype = value instanceof Int32Array ? "int32" : "float32";
        into.set(`${name}.${slot}`, new Tensor(dtype, [value.length], value.slice() as Float32Array));
      }
    }
  }

  /**
   * Replaces everything by what {@link write} gave; nothing is changed where it throws.
   *
   * @throws {TrainingError} If a tensor is missing, unexpected, of a wrong dtype, or not finite.
   */
  read(where: string, state: ReadonlyMap<string, Tensor>): void {
    const numberNames = Object.keys(this.numbers);
    const loaded = new Map<string, Partial<Record<Slot, StateArray>>>();
    for (const key of state.keys()) {
      if (key === "step" || numberNames.includes(key)) continue;
      const slot = this.slotNames.find((name) => key.endsWith(`.${name}`) && key.length > name.length + 1);
      if (slot === undefined) {
        const known = listed(["step", ...numberNames, ...this.slotNames.map((name) => `NAME.${name}`)]);
        throw new TrainingError(`${where}: unexpected tensor "${key}"; a state holds ${known}.`);
      }
      const name = key.slice(0, -slot.length - 1);
      if (!loaded.has(name)) loaded.set(name, this.readOne(where, state, name));
    }
    const numbers = numberNames.map((name) => [name, readNumber(where, state, name)] as const);
    Object.assign(this.numbers, Object.fromEntries(numbers));
    this.arrays = loaded;
  }

  private readOne(where: string, state: ReadonlyMap<string, Tensor>, name: string): Partial<Record<Slot, StateArray>> {
    // Which of the slots with sizes of their own a parameter has is known from its shape, at the next step.
    const wanted = this.slotNames.filter((slot) => !this.slots[slot].size || state.has(`${name}.${slot}`));
    const values: Partial<Record<Slot, StateArray>> = {};
    for (const slot of wanted) values[slot] = readValues(where, state, `${name}.${slot}`, this.slots[slot]);
    const sizes = wanted.filter((slot) => !this.slots[slot].size).map((slot) => values[slot]!.length);
    if (sizes.some((size) => size !== sizes[0])) {
      throw new TrainingError(`${where}: the state of "${name}" must have the same size; got ${listed(sizes)}.`);
    }
    for (const slot of wanted) {
      if (this.slots[slot].nonNegative && values[slot]!.some((value) => value < 0)) {
        throw new TrainingError(`${where}: "${name}.${slot}" must not be negative.`);
      }
    }
    return values;
  }

  private sizeOf(slot: Slot, shape: readonly number[]): number {
    return this.slots[slot].size?.(shape) ?? sizeOf(shape);
  }

  private ownSize(state: Partial<Record<Slot, StateArray>>): number {
    return Math.max(0, ...this.slotNames.map((slot) => state[slot]?.length ?? 0));
  }

  private check(
    name: string,
    state: Partial<Record<Slot, StateArray>>,
    shape: readonly number[],
    gradient: string = "",
  ): void {
    for (const slot of this.slotNames) {
      const size = this.sizeOf(slot, shape);
      const own = state[slot]?.length ?? 0;
      if (own === size) continue;
      const where = gradient === "" ? this.name : `${this.name}.step`;
      const elements = this.slots[slot].size ? `; its ${slot} must have ${size} elements` : "";
      throw new ShapeError(
        `${where}: "${name}" must have one size; got parameter ${sizeOf(shape)}, ${gradient}optimizer state ${own}${elements}.`,
      );
    }
  }
}

/** A number as a float32 and what its rounding left, also as float32. */
function halves(value: number): [number, number] {
  const high = Math.fround(value);
  return [high, Math.fround(value - high)];
}

/** "a, b and c". */
const listed = (items: readonly (string | number)[]): string =>
  items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;

function readNumber(where: string, state: ReadonlyMap<string, Tensor>, key: string): number {
  const [high, low] = readValues(where, state, key, {}) as Float32Array;
  if (high === undefined || low === undefined)
    throw new TrainingError(`${where}: "${key}" must be two float32 numbers.`);
  return high + low;
}

function readValues(where: string, state: ReadonlyMap<string, Tensor>, key: string, slot: StateSlot): StateArray {
  const { dtype = "float32" } = slot;
  const value = state.get(key);
  if (value?.dtype !== dtype) {
    throw new TrainingError(`${where}: "${key}" must be a ${dtype} tensor; got ${value ? value.dtype : "nothing"}.`);
  }
  const data = (value.data as StateArray).slice();
  if (data instanceof Float32Array && !allFinite(data)) {
    throw new TrainingError(`${where}: "${key}" holds values that are not finite.`);
  }
  return data;
}

/** The count of steps in a state dict. @throws {TrainingError} If it is none. */
export function readStep(where: string, value: Tensor | undefined): number {
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
