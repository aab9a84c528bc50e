// What a training step is made of and takes.

import type { AdapterLayout } from "../adapters/fera/adapter-state.js";
import type { UNetInputs } from "../models/unet-2d-condition/unet-2d-condition.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import type { Loan } from "./loan.js";

/** What updates parameters in place; `AdamW` is one. */
export interface StepOptimizer {
  step(parameters: ReadonlyMap<string, Float32Array>, gradients: ReadonlyMap<string, Float32Array>): void;
}

/** Options of `compileTrainStep`. */
export interface TrainStepOptions {
  batchSize: number;
  /** Latent size. */
  height: number;
  width: number;
  /** Text tokens. Default 77. */
  tokens?: number;
  /** Needed for `run`, and for a trainer whose state shall stay on the device. */
  optimizer?: StepOptimizer;
  /** An average of the adapters (`new ParameterAverage(fera.parameters, decay)`), updated by every step of `optimizer`. */
  average?: ParameterAverage;
  /** Largest common norm of all gradients, above 0. Not clipped by default. */
  gradientClip?: number;
  /** Seeds the dropout masks; each batch has its own, drawn from this and from its latents. Default 0. */
  dropoutSeed?: number;
  /**
   * Computes activations again in the backward pass instead of keeping them: less memory, the same gradients, about a
   * second adapted forward pass more time at most. Default false.
   */
  gradientCheckpointing?: boolean;
  /**
   * Keeps adapters, the optimizer's moments and the average on the device between steps of `run` or of a trainer; they
   * come back when something here asks for them. Needs an `AdamW` and Node. Default: on GPUs, where both are given.
   */
  stateOnDevice?: boolean;
}

/** The adapters that a step trains. */
export interface TrainedAdapter {
  /** The trainable tensors under their stacked names. */
  parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** Where their current values are. */
  loan: Loan;
  layout: AdapterLayout;
  /** Whether they are still the model's. */
  isCurrent: () => boolean;
}

/** One batch: the UNet's inputs, and what it must predict. */
export interface TrainStepInputs extends UNetInputs {
  /** Noise (or velocity, or flow), float32 like the UNet's output. */
  target: Tensor;
}
