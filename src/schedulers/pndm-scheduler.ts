// PNDM in its linear multistep form (PLMS), without the Runge-Kutta warm-up.

import { z } from "zod";
import { ConfigError, ShapeError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { DiscreteScheduler } from "./discrete-scheduler.js";
import { predictNoise } from "./predictions.js";
import { combine, float32Pair, timestepIndex } from "./samples.js";
import type { SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import {
  noiseScheduleOptions,
  offOption,
  parseSchedulerConfig,
  stepsOffsetOption,
  switchOption,
  timestepSpacingOption,
} from "./scheduler-config.js";
import { checkSteps, spacedTimesteps } from "./timestep-spacing.js";

const SCHEMA = z.object({
  ...noiseScheduleOptions,
  // diffusers' own default is false, so a configuration must say that it wants this
  skip_prk_steps: z.boolean().default(false),
  set_alpha_to_one: switchOption(false),
  prediction_type: z.enum(["epsilon", "v_prediction"]).default("epsilon"),
  timestep_spacing: timestepSpacingOption("leading"),
  steps_offset: stepsOffsetOption,
  rescale_betas_zero_snr: offOption,
});

/** Adams-Bashforth weights for 2, 3 and 4 known outputs, newest first. */
const MULTISTEP_WEIGHTS: readonly (readonly number[])[] = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

/**
 * Pseudo numerical methods for diffusion models, `skip_prk_steps` only: a linear multistep method of order up to 4
 * over the model's last outputs, warmed up by an improved Euler step. The second timestep is therefore visited twice,
 * and a run of n steps has n + 1 timesteps.
 *
 * @see Liu et al. 2022, arXiv:2202.09778, equations 9 and 12
 */
export class PNDMScheduler extends DiscreteScheduler<z.output<typeof SCHEMA>> {
  #stride: number | undefined;
  #counter = 0;
  /** The model's last outputs, newest first, at most 4. */
  #outputs: Float32Array[] = [];
  #firstSample: Float32Array | undefined;

  /**
   * @param config - diffusers' options; its defaults apply, and `skip_prk_steps` must be true.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  constructor(config: SchedulerConfig = {}) {
    super("PNDMScheduler", parseSchedulerConfig("PNDMScheduler", SCHEMA, config));
    if (!this.config.skip_prk_steps) {
      throw new ConfigError(
        "PNDMScheduler: skip_prk_steps=false (Runge-Kutta warm-up, the default of diffusers) is not supported; " +
          "set skip_prk_steps to true.",
      );
    }
  }

  setTimesteps(steps: number): void {
    const { num_train_timesteps: trainTimesteps, timestep_spacing: spacing, steps_offset: offset } = this.config;
    checkSteps(this.className, steps, trainTimesteps);
    const spaced = spacedTimesteps(this.className, { spacing, steps, trainTimesteps, offset });
    this.timesteps = [...spaced.slice(0, 2), ...spaced.slice(1)];
    this.#stride = Math.floor(trainTimesteps / steps);
    this.#counter = 0;
    this.#outputs = [];
    this.#firstSample = undefined;
  }

  step(modelOutput: Tensor, t: number, sample: Tensor, _options: StepOptions = {}): StepOutput {
    const where = `${this.className}.step`;
    if (this.#stride === undefined) throw new ConfigError(`${where}: call setTimesteps first.`);
    if (this.#counter >= this.timesteps.length) {
      throw new ConfigError(`${where}: the run is over; call setTimesteps to start another.`);
    }
    const [output, current] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    if (this.#outputs[0] && this.#outputs[0].length !== output.length) {
      throw new ShapeError(`${where}: the sample must keep its shape during a run; got [${sample.shape.join(",")}].`);
    }
    timestepIndex(where, t, this.alphasCumprod.length);

    // 1. The stride to go. The second call repeats the first stride with what the model said at its end.
    let from = t;
    let to = t - this.#stride;
    let x = current;
    let averaged: Float32Array;
    if (this.#counter === 1) {
      from = t + this.#stride;
      to = t;
      x = this.#firstSample!;
      averaged = combine(0.5, output, 0.5, this.#outputs[0]!);
      this.#firstSample = undefined;
    } else {
      // 2. The outputs, extrapolated
      this.#outputs = [output.slice(), ...this.#outputs.slice(0, 3)];
      averaged = weightedSum(MULTISTEP_WEIGHTS[this.#outputs.length - 1]!, this.#outputs);
      if (this.#counter === 0) this.#firstSample = current.slice();
    }

    // 3. Equation 9
    const alpha = this.alphaAt(where, from);
    const alphaPrev = to >= 0 ? this.alphasCumprod[to]! : this.config.set_alpha_to_one ? 1 : this.alphasCumprod[0]!;
    const beta = 1 - alpha;
    const noise = predictNoise(this.predictionType, {
      output: averaged,
      sample: x,
      a: Math.sqrt(alpha),
      s: Math.sqrt(beta),
    });
    const denominator = alpha * Math.sqrt(1 - alphaPrev) + Math.sqrt(alpha * beta * alphaPrev);
    const prev = combine(Math.sqrt(alphaPrev / alpha), x, -(alphaPrev - alpha) / denominator, noise);
    this.#counter++;
    return { prevSample: new Tensor("float32", sample.shape, prev) };
  }
}

function weightedSum(weights: readonly number[], arrays: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(arrays[0]!.length);
  for (let i = 0; i < result.length; i++) {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k]! * arrays[k]![i]!;
    result[i] = sum;
  }
  return result;
}
