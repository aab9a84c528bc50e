// What all schedulers over T discrete training timesteps share: the noise schedule and the forward process.

import type { Tensor } from "../tensor/tensor.js";
import { type NoiseScheduleConfig, noiseAlphasCumprod } from "./noise-schedule.js";
import { combinePerSample, float32, timestepIndex } from "./samples.js";
import type { PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import { readSchedulerConfig, type SchedulerSourceOptions } from "./scheduler-source.js";
import { checkBeginIndex } from "./step-cursor.js";
import { allTimesteps } from "./timestep-spacing.js";

/** The least that every scheduler's configuration has. */
export interface DiscreteSchedulerConfig extends NoiseScheduleConfig {
  readonly prediction_type: PredictionType;
}

/** Base of the schedulers; a subclass adds the timesteps of a run and the step. */
export abstract class DiscreteScheduler<C extends DiscreteSchedulerConfig> implements Scheduler {
  readonly config: C & Readonly<Record<string, unknown>>;
  readonly predictionType: PredictionType;
  readonly alphasCumprod: Float64Array;
  timesteps: number[];

  /**
   * @param className - diffusers' name of it.
   * @param config - Checked and complete.
   */
  constructor(
    readonly className: string,
    config: C,
  ) {
    this.config = Object.freeze({ ...config });
    this.predictionType = config.prediction_type;
    this.alphasCumprod = noiseAlphasCumprod(className, config);
    this.timesteps = allTimesteps(config.num_train_timesteps);
  }

  /**
   * Makes the scheduler from a folder's `scheduler_config.json`, of whichever scheduler that is: as in diffusers, options
   * that only others have are of no effect.
   *
   * @param dir - The folder, or a hub id; of a pipeline, with `subfolder: "scheduler"`.
   * @throws {FormatError} If the file is missing or malformed.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  static async fromPretrained<S extends Scheduler>(
    this: new (
      config: SchedulerConfig,
    ) => S,
    dir: string,
    options: SchedulerSourceOptions = {},
  ): Promise<S> {
    return new this(await readSchedulerConfig(dir, options));
  }

  abstract setTimesteps(steps: number): void;
  abstract step(modelOutput: Tensor, t: number, sample: Tensor, options?: StepOptions): StepOutput;

  /** Of no effect where a step needs to know nothing but its timestep. */
  setBeginIndex(index: number): void {
    checkBeginIndex(this.className, index, this.timesteps);
  }

  get initNoiseSigma(): number {
    return 1;
  }

  scaleModelInput(sample: Tensor, _t: number): Tensor<"float32"> {
    float32(`${this.className}.scaleModelInput`, "sample", sample);
    return sample as Tensor<"float32">;
  }

  /** x_t = sqrt(ᾱ_t)·x_0 + sqrt(1 − ᾱ_t)·noise. */
  addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.addNoise`;
    return combinePerSample(where, ["original", "noise"], [original, noise], timesteps, (t) => {
      const alpha = this.alphaAt(where, t);
      return [Math.sqrt(alpha), Math.sqrt(1 - alpha)];
    });
  }

  getVelocity(sample: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    const where = `${this.className}.getVelocity`;
    return combinePerSample(where, ["sample", "noise"], [sample, noise], timesteps, (t) => {
      const alpha = this.alphaAt(where, t);
      return [-Math.sqrt(1 - alpha), Math.sqrt(alpha)];
    });
  }

  /**
   * ᾱ_t.
   *
   * @throws {ConfigError} Unless `t` is an integer in [0, T).
   */
  protected alphaAt(where: string, t: number): number {
    return this.alphasCumprod[timestepIndex(where, t, this.alphasCumprod.length)]!;
  }
}
