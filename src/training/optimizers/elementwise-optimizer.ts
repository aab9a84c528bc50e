// Optimizers whose formula is the same for every element: they have a second form, as nodes of a graph, for steps whose
// state stays on a device.

import type { OptimizerStepSettings, StepOptimizer } from "../../adapters/train-step-options.js";
import type { Value } from "../../graph/index.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "./optimizer.js";

/** One step as part of a graph. P values of all parameters, packed into one vector. */
export interface GraphStep<Slot extends string = string> {
  /** `[P]`. */
  parameters: Value;
  /** `[P]` each, by slot. */
  state: Readonly<Record<Slot, Value>>;
}

/**
 * Base of the optimizers that work element by element.
 *
 * @typeParam Slot - Names of what is remembered of every parameter, as many values as it has.
 * @typeParam Coefficient - Names of the numbers that a step depends on.
 */
export abstract class ElementwiseOptimizer<
  Slot extends string = string,
  Coefficient extends string = string,
> extends Optimizer<Slot> {
  /** The coefficients that are proportional to the learning rate, so that a parameter's factor goes onto them. */
  abstract readonly rateCoefficients: readonly Coefficient[];

  /** The numbers of a step, for a factor of 1; always the same names in the same order. */
  protected abstract coefficientsOf(rate: StepRate): Record<Coefficient, number>;

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
   * @param coefficients - `[1]` each, or `[P]` where they differ between parameters, by name.
   * @returns Parameters and state after it.
   */
  abstract addToGraph(
    before: GraphStep<Slot>,
    gradient: Value,
    coefficients: Readonly<Record<Coefficient, Value>>,
  ): GraphStep<Slot>;

  /** Names of {@link coefficients}, in their order. */
  get coefficientNames(): readonly Coefficient[] {
    return Object.keys(this.coefficients()) as Coefficient[];
  }

  /**
   * The numbers of the next step.
   *
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  coefficients(settings: Pick<OptimizerStepSettings, "learningRate"> = {}): Record<Coefficient, number> {
    return this.coefficientsOf(this.rateOfStep(settings));
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], rate: StepRate): void {
    const plain = this.coefficientsOf(rate);
    for (const { parameter, gradient, state, factor } of updates) {
      const coefficients = this.scaled(plain, factor);
      this.update(parameter, gradient, state as Readonly<Record<Slot, Float32Array>>, coefficients);
    }
  }

  /** The numbers of a parameter whose learning rate has that factor. */
  protected scaled(plain: Record<Coefficient, number>, factor: number): Record<Coefficient, number> {
    if (factor === 1) return plain;
    const scaled = { ...plain };
    for (const name of this.rateCoefficients) scaled[name] *= factor;
    return scaled;
  }
}

/** Whether an optimizer has a form as graph nodes, so that its steps can be done on a device too. */
export const hasGraphForm = (optimizer: StepOptimizer | undefined): optimizer is ElementwiseOptimizer =>
  optimizer instanceof ElementwiseOptimizer;
