// What every sampler offers, under diffusers' meanings. Types only.

import type { Tensor } from "../tensor/tensor.js";

/** What a model's output stands for: the noise, the velocity, or the clean sample. */
export type PredictionType = "epsilon" | "v_prediction" | "sample";

/** A configuration under diffusers' keys, as read from `scheduler_config.json`. */
export type SchedulerConfig = Readonly<Record<string, unknown>>;

/** Options of one step; a sampler ignores those that it has no use for. */
export interface StepOptions {
  /** Noise for samplers that add some: a tensor of the sample's shape, or a function that draws one when needed. */
  noise?: Tensor | ((shape: readonly number[]) => Tensor);
  /** DDIM only: 0 is deterministic, 1 adds as much noise as DDPM. Default 0. */
  eta?: number;
  /** DDIM only: derive the noise anew from the clipped clean sample. Default false. */
  useClippedModelOutput?: boolean;
}

/** What a run's timesteps follow beside their number; for flow matching only. */
export interface RunOptions {
  /** How far noise levels move towards noise, where the configuration says `use_dynamic_shifting`. */
  mu?: number;
  /** Noise levels, noisiest first, as many as there are steps, in place of evenly spaced ones; above 0, up to 1. */
  sigmas?: readonly number[];
}

/** What one step gives back. */
export interface StepOutput {
  /** The sample at the next, less noisy timestep; same shape as the input. */
  prevSample: Tensor<"float32">;
  /** The clean sample as this step sees it; absent where the algorithm does not form one. */
  predOriginalSample?: Tensor<"float32">;
}

/**
 * A noise schedule together with a way to walk it backwards.
 *
 * Samples are float32 `[B, …]`, B the batch. T is the number of training timesteps; timesteps lie in [0, T).
 */
export interface Scheduler {
  /** What diffusers calls it; left out by one that diffusers does not have. */
  readonly className?: string;
  /** The configuration with every default filled in, under diffusers' keys. */
  readonly config: SchedulerConfig;
  /** What the model is expected to predict. */
  readonly predictionType: PredictionType | "flow_prediction";
  /** ᾱ_t = Π_{s≤t} (1 − β_s), T values in float64; flow matching has none, its noise level is t/T. */
  readonly alphasCumprod?: Float64Array;
  /** The timesteps to visit, noisiest first; all T of them before `setTimesteps`. */
  readonly timesteps: number[];
  /** Standard deviation that the initial noise must be scaled to. */
  readonly initNoiseSigma: number;

  /**
   * Chooses the timesteps of a run and resets all state of the previous run.
   *
   * @param steps - 1 to T.
   * @param options - What the noise levels of flow matching follow; others take none.
   * @throws {ConfigError} If `steps` is no such integer.
   */
  setTimesteps(steps: number, options?: RunOptions): void;

  /**
   * Says where among `timesteps` the run starts, for one that leaves out the first ones; otherwise it starts at the
   * first timestep that is stepped from. Needed where a timestep occurs twice. To be called after `setTimesteps`.
   *
   * @throws {ConfigError} If `index` is no index of `timesteps`.
   */
  setBeginIndex(index: number): void;

  /** The sample as the model wants to see it at timestep `t`; may be the same tensor. */
  scaleModelInput(sample: Tensor, t: number): Tensor<"float32">;

  /**
   * Goes from timestep `t` to the next one.
   *
   * @param modelOutput - The model's prediction, float32, the sample's shape.
   * @param t - One of `timesteps`, in their order.
   * @param sample - The current sample, not scaled.
   * @throws {ShapeError} If shapes or dtypes do not fit.
   * @throws {ConfigError} If `t` is not the timestep that is due, or `setTimesteps` was not called where it must be.
   */
  step(modelOutput: Tensor, t: number, sample: Tensor, options?: StepOptions): StepOutput;

  /**
   * Diffuses clean samples to the given timesteps.
   *
   * @param timesteps - int64, int32 or float32, one per sample of the batch or one for all.
   */
  addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32">;

  /**
   * The training target of v-prediction, v = sqrt(ᾱ_t)·noise − sqrt(1 − ᾱ_t)·sample; of flow matching noise − sample.
   *
   * @param timesteps - int64, int32 or float32 holding integers, one per sample of the batch or one for all.
   * @see Salimans & Ho 2022, arXiv:2202.00512
   */
  getVelocity(sample: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32">;
}
