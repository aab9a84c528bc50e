// What the trainer trains: a set of float32 parameters and a way to get a batch's loss and gradients.

import type {
  Losses,
  LossesAndGradients,
  SampleLosses,
  StepLossScale,
  TrainStepInputs,
} from "../adapters/train-step-options.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import type { Optimizer } from "./optimizers/optimizer.js";

export type { Losses, LossesAndGradients, SampleLosses } from "../adapters/train-step-options.js";

/** One batch of a diffusion objective. B batch, C×h×w latent size. */
export interface DiffusionBatch extends TrainStepInputs {
  /** Noisy latents z_t, `[B, C, h, w]`. */
  latents: Tensor<"float32">;
  /** What the model must predict (noise or velocity), `[B, C, h, w]`. */
  target: Tensor<"float32">;
  /** Token ids, int64 `[B, T]`, where the text encoder is trained. */
  inputIds?: Tensor;
  /** The images' places in the data, B of them; for messages. */
  rows?: readonly number[];
}

/** What a step of an optimizer tells. */
export interface StepOutcome {
  losses: Losses;
  /** L2 norm of all gradients together, before clipping. */
  gradientNorm: number;
  /** Of all batches of the step, where the trainable tells them. */
  sampleLosses?: SampleLosses;
}

/** Settings of one step of {@link DeviceSteps}. */
export interface DeviceStepOptions {
  /** The optimizer's own by default. */
  learningRate?: number;
  /** Largest L2 norm of all gradients together; not clipped by default. */
  maxGradientNorm?: number;
  /**
   * Called before anything is changed: throws where the step must not take effect.
   *
   * @param gradients - Brings the gradients into main memory.
   */
  accept: (outcome: StepOutcome, gradients: () => ReadonlyMap<string, Float32Array>) => void;
}

/** Steps of an optimizer whose state stays on the device that computes; only the outcome comes into main memory. */
export interface DeviceSteps<Batch extends TrainStepInputs = DiffusionBatch> {
  /** Whose state is there; it shows the current one when asked. */
  readonly optimizer: Optimizer;
  /** The average that is there, and updated by every step; it shows current values when asked. */
  readonly average?: ParameterAverage;
  /** The factors on the learning rate that the steps have. */
  readonly rateOf?: (name: string) => number;
  /** One step on a batch. Rejects with what `accept` throws; nothing is changed then. */
  step(batch: Batch, options: DeviceStepOptions): Promise<StepOutcome>;
}

/** A compiled training step over parameters that the caller may change in place. */
export interface Trainable<Batch extends TrainStepInputs = DiffusionBatch> {
  /** The factor on the loss of steps in mixed precision. */
  readonly lossScale?: StepLossScale | undefined;
  /** By name; what an optimizer updates. */
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** Losses and the gradient of `loss` for every parameter, under the same names. Changes nothing. */
  compute(batch: Batch): Promise<LossesAndGradients>;
  /** Where an optimizer's state stays on a device: whole steps there. `parameters` are then current when asked for. */
  readonly deviceSteps?: DeviceSteps<Batch>;
}
