// What `compileTrainStep` takes and gives. The step itself is training's, which is loaded when it is asked for.

import type { DenoiserInputs, LossTerms } from "../diffusion/index.js";
import type { Tensor } from "../tensor/tensor.js";

/** Settings of one step of an optimizer. */
export interface OptimizerStepSettings {
  /** Replaces the optimizer's own for this step. */
  learningRate?: number;
  /** A factor on the learning rate by the parameter's name, 0 or more; 0 leaves the parameter as it is. Default 1. */
  rateOf?: (name: string) => number;
  /** By parameter; some optimizers need them. */
  shapes?: ReadonlyMap<string, readonly number[]>;
}

/** What goes along with a step of an optimizer of this library, in the same pass over memory. */
export interface AccompaniedStepSettings extends OptimizerStepSettings {
  /** Multiplies every gradient first, rounded to float32; in place or not. */
  gradientScale?: number;
  /** Takes in every parameter once it is changed: `average ← parameter + decay·(average − parameter)`. */
  average?: { decay: number; values: ReadonlyMap<string, Float32Array> };
}

/** What updates parameters in place; `AdamW` is one. */
export interface StepOptimizer {
  step(
    parameters: ReadonlyMap<string, Float32Array>,
    gradients: ReadonlyMap<string, Float32Array>,
    settings?: OptimizerStepSettings,
  ): void;
}

/** An average of parameters; `ParameterAverage` is one. */
export interface StepAverage {
  /** Whether it is an average of these very tensors. */
  isOf(parameters: ReadonlyMap<string, Tensor<"float32">>): boolean;
  /** Takes in the parameters as they are. */
  update(): void;
}

/** What a step computes in. */
export const MIXED_PRECISIONS = ["no", "fp16"] as const;

export type MixedPrecision = (typeof MIXED_PRECISIONS)[number];

/** A factor on the loss, so that gradients keep to float16's range; `LossScale` is one. */
export interface StepLossScale {
  readonly value: number;
  /** Gradients overflowed. @returns Whether there is a smaller factor now. */
  backOff(): boolean;
  /** A step went well. */
  succeeded(): void;
}

/** Options of `compileTrainStep`. */
export interface TrainStepOptions {
  batchSize: number;
  /** Latent size. */
  latentHeight?: number;
  latentWidth?: number;
  /** The same as `latentHeight`. */
  height?: number;
  /** The same as `latentWidth`. */
  width?: number;
  /** Text tokens. Default 77. */
  tokens?: number;
  /** The loss terms beside the adapter's. Default: the mean squared error, `mse`. */
  objective?: LossTerms;
  /** Whether batches have `lossWeights`, and `lossMask`; one without then counts 1. An objective may ask for the first itself. */
  lossWeights?: boolean;
  lossMask?: boolean;
  /** Needed for `run`, and for a trainer whose state shall stay on the device. */
  optimizer?: StepOptimizer;
  /** A factor on the learning rate by the name of a trained tensor, 0 or more; 0 leaves it as it is. Default 1. */
  rateOf?: (name: string) => number;
  /** An average of the adapters (`new ParameterAverage(fera.parameters, decay)`), updated by every step of `optimizer`. */
  average?: StepAverage;
  /** Largest common norm of all gradients, above 0. Not clipped by default. */
  maxGradientNorm?: number;
  /** The same as `maxGradientNorm`. */
  gradientClip?: number;
  /** Seeds the dropout masks; each batch has its own, drawn from this and from its latents. Default 0. */
  dropoutSeed?: number;
  /**
   * Recomputes activations in the backward pass instead of keeping them: less memory, the same gradients, about a second
   * adapted forward pass more time at most. Default false.
   */
  gradientCheckpointing?: boolean;
  /**
   * `fp16` computes products, convolutions and what lies between them in float16; norms' statistics, softmax, losses, what
   * is trained and its gradients stay float32. For GPUs: no faster on the CPU. Default `no`.
   */
  mixedPrecision?: MixedPrecision;
  /** The factor on the loss of an `fp16` step, shared by all steps of a training. Default: a new one. */
  lossScale?: StepLossScale;
  /**
   * Keeps adapters, the optimizer's state and the average on the device between steps of `run` or of a trainer; they come
   * back when something here asks for them. Needs an optimizer with a graph form (AdamW, Lion, ScheduleFreeAdamW) and Node.
   * Default: on GPUs, where both are given.
   */
  stateOnDevice?: boolean;
}

/** One batch: the denoiser's inputs, and what it must predict. */
export interface TrainStepInputs extends DenoiserInputs {
  /** Noise (or velocity, or flow), float32 like the denoiser's output. */
  target: Tensor;
  /** How much each sample counts in all terms of the loss, float32 `[B]`: what the step was compiled to take. */
  lossWeights?: Tensor;
  /** How much each place of a latent counts, float32 `[B, 1, H, W]`, 0 or more: what the step was compiled to take. */
  lossMask?: Tensor;
  /** Threshold of an objective with a Huber loss, float32 `[B]`, above 0. */
  huberC?: Tensor;
}

/** Losses of a batch: the total, the objective's terms by name (`mse`) and the adapter's (`fecl`), weighted. */
export interface Losses {
  /** The sum of all terms. */
  loss: number;
  readonly [term: string]: number;
}

/** What each sample of a batch lost, and at which timestep: masked, not weighted. B values each. */
export interface SampleLosses {
  timesteps: readonly number[];
  /** The objective's first term. */
  losses: readonly number[];
}

/** Losses of a batch, and the gradient of `loss` for every trained tensor, under the same names. */
export interface LossesAndGradients {
  losses: Losses;
  gradients: Map<string, Float32Array>;
  /** Where the objective tells them. */
  sampleLosses?: SampleLosses;
}

/** What `compileTrainStep` gives. */
export interface CompiledTrainStep {
  /** The trained tensors under their stacked names, with current values. */
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** One step of the optimizer, and one update of the average where there is one. */
  run(batch: TrainStepInputs): Promise<Losses>;
  /** Losses and gradients under the state dict's names. Changes nothing. */
  gradients(batch: TrainStepInputs): Promise<Losses & { gradients: Map<string, Tensor<"float32">> }>;
  /** Losses and the gradient of `loss` for every tensor of `parameters`. Changes nothing. */
  compute(batch: TrainStepInputs): Promise<LossesAndGradients>;
  /** Losses without dropout and without gradients. Changes nothing. */
  evaluate(batch: TrainStepInputs): Promise<Losses>;
  /** Frees what was compiled. */
  release(): Promise<void>;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
