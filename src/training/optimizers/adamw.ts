// AdamW on flat float32 arrays in main memory, and the clipping of gradients. No schedule of learning rates.

import { ConfigError, ShapeError, TrainingError } from "../../errors.js";
import { DeviceResident } from "../../runtime/index.js";
import { allFinite, Tensor } from "../../tensor/tensor.js";

/** Hyperparameters of AdamW, with PyTorch's defaults. */
export interface AdamWOptions {
  /** Learning rate, 0 or more. */
  lr?: number;
  /** Decay rates β1 and β2 of the two moments, each in [0, 1). */
  betas?: readonly [number, number];
  /** Added to the root of the second moment, 0 or more. */
  eps?: number;
  /** Decoupled weight decay λ, 0 or more. */
  weightDecay?: number;
}

/** The two moments of one parameter. */
export interface Moments {
  first: Float32Array;
  second: Float32Array;
}

/** The numbers of one step of AdamW. */
export interface AdamWCoefficients {
  /** γλ. */
  decay: number;
  beta1: number;
  /** 1 − β1. */
  gain1: number;
  beta2: number;
  /** 1 − β2. */
  gain2: number;
  /** γ/(1 − β1^k). */
  stepSize: number;
  /** 1/sqrt(1 − β2^k). */
  rootScale: number;
  eps: number;
}

/**
 * Adam with decoupled weight decay.
 *
 * With gradient g, learning rate γ and step count k, for every element of a parameter θ:
 * θ ← θ·(1 − γλ); m ← β1·m + (1 − β1)·g; v ← β2·v + (1 − β2)·g²;
 * θ ← θ − γ/(1 − β1^k) · m / (sqrt(v)/sqrt(1 − β2^k) + eps).
 *
 * @see Loshchilov & Hutter 2017, arXiv:1711.05101
 */
export class AdamW {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** Where the moments are, for steps that are done on a device. */
  readonly residence = new DeviceResident();
  #step = 0;
  readonly #moments = new Map<string, Moments>();

  /**
   * @throws {ConfigError} If an option is out of its range.
   */
  constructor({ lr = 1e-3, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 }: AdamWOptions = {}) {
    checkNonNegative("lr", lr);
    checkNonNegative("eps", eps);
    checkNonNegative("weightDecay", weightDecay);
    if (!Array.isArray(betas) || betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new ConfigError(`AdamW: betas must be two numbers in [0, 1); got ${JSON.stringify(betas)}.`);
    }
    this.lr = lr;
    this.betas = [betas[0]!, betas[1]!];
    this.eps = eps;
    this.weightDecay = weightDecay;
  }

  /** Number of steps done, those of a loaded state included. */
  get stepCount(): number {
    return this.#step;
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
      const { first, second } = this.#momentsOf(name, parameter.length);
      update(parameter, gradient, first, second, coefficients);
    }
  }

  /**
   * The numbers of the next step.
   *
   * @throws {ConfigError} If the learning rate is negative or not finite.
   */
  coefficients({ learningRate = this.lr }: { learningRate?: number } = {}): AdamWCoefficients {
    checkNonNegative("learningRate", learningRate);
    const step = this.#step + 1;
    const [beta1, beta2] = this.betas;
    return {
      decay: learningRate * this.weightDecay,
      beta1,
      gain1: 1 - beta1,
      beta2,
      gain2: 1 - beta2,
      stepSize: learningRate / (1 - beta1 ** step),
      rootScale: 1 / Math.sqrt(1 - beta2 ** step),
      eps: this.eps,
    };
  }

  /** Counts a step; `step` does so itself, whoever does a step elsewhere says so here. */
  countStep(): void {
    this.#step++;
  }

  /**
   * The moments of parameters, zeros at first, to be changed in place by whoever does steps elsewhere.
   *
   * @param sizes - Number of elements by parameter.
   * @throws {ShapeError} If the optimizer's state has other sizes.
   */
  moments(sizes: ReadonlyMap<string, number>): Map<string, Moments> {
    this.residence.syncToHost();
    const result = new Map<string, Moments>();
    for (const [name, size] of sizes) {
      const moments = this.#momentsOf(name, size);
      if (moments.first.length !== size) {
        throw new ShapeError(
          `AdamW: "${name}" must have one size; got parameter ${size}, optimizer state ${moments.first.length}.`,
        );
      }
      result.set(name, moments);
    }
    return result;
  }

  /**
   * The state to go on from: `step` (int64, scalar), and for every parameter met so far `NAME.exp_avg` and
   * `NAME.exp_avg_sq` (float32, flat), PyTorch's names for the two moments.
   *
   * @returns Copies.
   */
  stateDict(): Map<string, Tensor> {
    this.residence.syncToHost();
    const state = new Map<string, Tensor>([["step", new Tensor("int64", [], BigInt64Array.of(BigInt(this.#step)))]]);
    for (const [name, { first, second }] of this.#moments) {
      state.set(`${name}.exp_avg`, new Tensor("float32", [first.length], first.slice()));
      state.set(`${name}.exp_avg_sq`, new Tensor("float32", [second.length], second.slice()));
    }
    return state;
  }

  /**
   * Replaces the state by one that `stateDict` gave. Moments of any shape are taken; they must fit their parameters
   * at the next step.
   *
   * @throws {TrainingError} If a tensor is missing, unexpected, of a wrong dtype, or not finite; nothing is changed then.
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    const step = readStep(state.get("step"));
    const loaded = new Map<string, Moments>();
    for (const key of state.keys()) {
      if (key === "step") continue;
      const name = key.match(/^(.+)\.exp_avg(?:_sq)?$/s)?.[1];
      if (name === undefined) {
        throw new TrainingError(
          `AdamW.loadStateDict: unexpected tensor "${key}"; a state holds step, NAME.exp_avg and NAME.exp_avg_sq.`,
        );
      }
      if (loaded.has(name)) continue;
      const first = readMoment(state, `${name}.exp_avg`);
      const second = readMoment(state, `${name}.exp_avg_sq`);
      if (first.length !== second.length) {
        throw new TrainingError(
          `AdamW.loadStateDict: the moments of "${name}" must have the same size; got ${first.length} and ${second.length}.`,
        );
      }
      if (second.some((value) => value < 0)) {
        throw new TrainingError(`AdamW.loadStateDict: "${name}.exp_avg_sq" must not be negative.`);
      }
      loaded.set(name, { first, second });
    }
    this.residence.syncToHost();
    this.#step = step;
    this.#moments.clear();
    for (const [name, moments] of loaded) this.#moments.set(name, moments);
  }

  #momentsOf(name: string, size: number): Moments {
    let moments = this.#moments.get(name);
    if (!moments) {
      moments = { first: new Float32Array(size), second: new Float32Array(size) };
      this.#moments.set(name, moments);
    }
    return moments;
  }

  #check(name: string, parameter: Float32Array | undefined, gradient: Float32Array): void {
    if (!parameter) throw new ShapeError(`AdamW.step: the gradient "${name}" has no parameter of that name.`);
    const size = this.#moments.get(name)?.first.length ?? parameter.length;
    if (gradient.length !== parameter.length || size !== parameter.length) {
      throw new ShapeError(
        `AdamW.step: "${name}" must have one size; got parameter ${parameter.length}, gradient ${gradient.length}, ` +
          `optimizer state ${size}.`,
      );
    }
  }
}

/**
 * The norm of all gradients taken together, sqrt(Σ g²), accumulated in float64.
 *
 * @returns 0 without gradients; NaN or Infinity if any element is such.
 */
export function gradientNorm(gradients: ReadonlyMap<string, Float32Array>): number {
  let total = 0;
  for (const gradient of gradients.values()) total += sumOfSquares(gradient);
  return Math.sqrt(total);
}

/**
 * Scales gradients in place so that their common norm is at most `maxNorm`: by maxNorm/(norm + 1e-6) where that is
 * below 1, as `torch.nn.utils.clip_grad_norm_` does.
 *
 * Gradients whose norm is not finite are left as they are; check the returned norm.
 *
 * @param maxNorm - Above 0; Infinity clips nothing.
 * @returns The norm before clipping.
 * @throws {ConfigError} If `maxNorm` is not above 0.
 */
export function clipGradients(gradients: ReadonlyMap<string, Float32Array>, maxNorm: number): number {
  if (!(maxNorm > 0)) throw new ConfigError(`clipGradients: maxNorm must be above 0; got ${maxNorm}.`);
  const norm = gradientNorm(gradients);
  const factor = maxNorm / (norm + 1e-6);
  if (factor < 1 && Number.isFinite(norm)) {
    for (const gradient of gradients.values()) {
      for (let i = 0; i < gradient.length; i++) gradient[i]! *= factor;
    }
  }
  return norm;
}

/** The formula of `AdamW` on one parameter, in float64 between float32 loads and stores (rounding each step to float32 is slower). */
function update(
  parameter: Float32Array,
  gradient: Float32Array,
  first: Float32Array,
  second: Float32Array,
  { decay, beta1, gain1, beta2, gain2, stepSize, rootScale, eps }: AdamWCoefficients,
): void {
  const keep = 1 - decay;
  const length = parameter.length;
  for (let i = 0; i < length; i++) {
    const g = gradient[i]!;
    const m = beta1 * first[i]! + gain1 * g;
    const v = beta2 * second[i]! + gain2 * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i]! * keep - (stepSize * m) / (Math.sqrt(v) * rootScale + eps);
  }
}

/** Σ x², in four partial sums: a single one would wait for each addition before the next. */
function sumOfSquares(values: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const even = values.length - (values.length % 4);
  for (let i = 0; i < even; i += 4) {
    a += values[i]! * values[i]!;
    b += values[i + 1]! * values[i + 1]!;
    c += values[i + 2]! * values[i + 2]!;
    d += values[i + 3]! * values[i + 3]!;
  }
  for (let i = even; i < values.length; i++) a += values[i]! * values[i]!;
  return a + b + c + d;
}

function checkNonNegative(name: string, value: number): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new ConfigError(`AdamW: ${name} must be a finite number, 0 or more; got ${String(value)}.`);
  }
}

function readStep(value: Tensor | undefined): number {
  if (value?.size !== 1 || (value.dtype !== "int64" && value.dtype !== "int32" && value.dtype !== "float32")) {
    throw new TrainingError(
      `AdamW.loadStateDict: "step" must be one int64, int32 or float32 number; got ${value ? `${value.dtype} [${value.shape.join(",")}]` : "nothing"}.`,
    );
  }
  const step = Number(value.data[0]);
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new TrainingError(`AdamW.loadStateDict: "step" must be an integer, 0 or more; got ${step}.`);
  }
  return step;
}

function readMoment(state: ReadonlyMap<string, Tensor>, key: string): Float32Array {
  const value = state.get(key);
  if (value?.dtype !== "float32") {
    throw new TrainingError(
      `AdamW.loadStateDict: "${key}" must be a float32 tensor; got ${value ? value.dtype : "nothing"}.`,
    );
  }
  const data = (value.data as Float32Array).slice();
  if (!allFinite(data)) throw new TrainingError(`AdamW.loadStateDict: "${key}" holds values that are not finite.`);
  return data;
}
