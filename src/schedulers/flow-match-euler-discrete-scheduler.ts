// Euler's method along the straight lines between image and noise: what FLUX, Stable Diffusion 3 and Z-Image are sampled with.

import { z } from "zod";
import { ConfigError } from "../errors.js";
import { Tensor } from "../tensor/tensor.js";
import { FLOW_SHAPE } from "./flow-matching-config.js";
import { combine, combinePerSample, float32, float32Pair, stepNoise } from "./samples.js";
import type { RunOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
import { parseSchedulerConfig, switchOption } from "./scheduler-config.js";
import { readSchedulerConfig, type SchedulerSourceOptions } from "./scheduler-source.js";
import { type SigmaSchedule, sigmaSchedule } from "./sigmas.js";
import { StepCursor } from "./step-cursor.js";
import { checkSteps } from "./timestep-spacing.js";

const NAME = "FlowMatchEulerDiscreteScheduler";

const SCHEMA = z.object({
  ...FLOW_SHAPE,
  shift_terminal: z.number().min(0).lt(1).nullable().default(null),
  use_karras_sigmas: switchOption(false).nullable(),
  use_exponential_sigmas: switchOption(false).nullable(),
  use_beta_sigmas: switchOption(false).nullable(),
  stochastic_sampling: switchOption(false),
});

/**
 * Euler sampling of rectified flow, z = (1 − sigma)·x_0 + sigma·noise, sigma from 1 to 0. The model predicts noise − x_0.
 *
 * x ← x + (sigma_{i+1} − sigma_i) · output; with `stochastic_sampling` x ← (1 − sigma_{i+1})·x̂_0 + sigma_{i+1}·noise.
 * Noise levels move towards noise by s·sigma / (1 + (s − 1)·sigma): s is `shift`, or with `use_dynamic_shifting` e^mu, mu
 * where `time_shift_type` is linear, mu the run's. Timesteps are sigma·T, T the number of training timesteps.
 *
 * @see Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206
 */
export class FlowMatchEulerDiscreteScheduler implements Scheduler {
  readonly className = NAME;
  readonly predictionType = "flow_prediction";
  readonly config: Readonly<z.output<typeof SCHEMA>> & Readonly<Record<string, unknown>>;
  timesteps: number[];
  /** Noise levels of the run, one more than there are timesteps; the last is 0. */
  sigmas: Float64Array;
  readonly #sigmaSchedule: SigmaSchedule | undefined;
  /** The smallest and the largest noise level of training, shifted where the shift is fixed. */
  readonly #range: readonly [min: number, max: number];
  #cursor: StepCursor;

  /**
   * @param config - diffusers' options; its defaults apply.
   * @throws {ConfigError} If an option is unknown, invalid or not supported (`invert_sigmas` is not).
   */
  constructor(config: SchedulerConfig = {}) {
    this.config = Object.freeze({ ...parseSchedulerConfig(NAME, SCHEMA, config) });
    this.#sigmaSchedule = sigmaSchedule(NAME, this.config);
    const { num_train_timesteps: total, use_dynamic_shifting: isDynamic, shift } = this.config;
    const levels = Float64Array.from({ length: total }, (_, i) => {
      const sigma = (total - i) / total;
      return isDynamic ? sigma : shifted(sigma, shift);
    });
    this.#range = [Math.fround(levels.at(-1)!), Math.fround(levels[0]!)];
    this.sigmas = Float64Array.of(...levels, 0);
    this.timesteps = timestepsOf(levels, total);
    this.#cursor = new StepCursor(NAME, this.timesteps);
  }

  /**
   * Makes the scheduler from a folder's `scheduler_config.json`, of whichever scheduler that is: as in diffusers, options
   * that only others have are of no effect.
   *
   * @param dir - The folder, or a hub id; of a pipeline, with `subfolder: "scheduler"`.
   * @throws {FormatError} If the file is missing or malformed.
   * @throws {ConfigError} If an option is unknown, invalid or not supported.
   */
  static async fromPretrained(
    dir: string,
    options: SchedulerSourceOptions = {},
  ): Promise<FlowMatchEulerDiscreteScheduler> {
    return new FlowMatchEulerDiscreteScheduler(await readSchedulerConfig(dir, options));
  }

  get initNoiseSigma(): number {
    return 1;
  }

  /**
   * Chooses the noise levels of a run.
   *
   * @param options - `mu` where the configuration says `use_dynamic_shifting`; `sigmas` in place of evenly spaced ones,
   *   before they are shifted.
   * @throws {ConfigError} If the number of steps is none, or an option is missing or invalid.
   */
  setTimesteps(steps: number, { mu, sigmas: given }: RunOptions = {}): void {
    const { num_train_timesteps: total, use_dynamic_shifting: isDynamic, shift_terminal: terminal } = this.config;
    checkSteps(NAME, steps, total);
    const shift = isDynamic ? this.#dynamicShift(mu) : this.config.shift;

    // 1. Even levels, or those that are given
    const [min, max] = this.#range;
    const even = (i: number) => (steps === 1 ? max : max + ((min - max) * i) / (steps - 1));
    if (given) checkSigmas(given, steps);
    const levels = Float64Array.from({ length: steps }, (_, i) => (given ? Math.fround(given[i]!) : even(i)));

    // 2. Towards noise
    let sigmas: Float64Array = levels.map((sigma) => shifted(sigma, shift));

    // 3. Stretched, so that the last one is `shift_terminal`
    if (terminal) sigmas = stretched(sigmas, terminal);

    // 4. Spread otherwise between the first and the last
    if (this.#sigmaSchedule) sigmas = this.#sigmaSchedule(sigmas.at(-1)!, sigmas[0]!, steps);

    this.timesteps = timestepsOf(sigmas, total);
    this.sigmas = Float64Array.of(...sigmas.map(Math.fround), 0);
    this.#cursor = new StepCursor(NAME, this.timesteps);
  }

  setBeginIndex(index: number): void {
    this.#cursor.begin(index);
  }

  scaleModelInput(sample: Tensor, _t: number): Tensor<"float32"> {
    float32(`${NAME}.scaleModelInput`, "sample", sample);
    return sample as Tensor<"float32">;
  }

  /** Needs `options.noise` with `stochastic_sampling`. */
  step(modelOutput: Tensor, t: number, sample: Tensor, { noise }: StepOptions = {}): StepOutput {
    const where = `${NAME}.step`;
    const [output, x] = float32Pair(where, ["modelOutput", "sample"], modelOutput, sample);
    const index = this.#cursor.advance(t);
    const [sigma, next] = [this.sigmas[index]!, this.sigmas[index + 1]!];
    const original = combine(1, x, -sigma, output);
    const prev = this.config.stochastic_sampling
      ? combine(1 - next, original, next, stepNoise(where, noise, sample))
      : combine(1, x, next - sigma, output);
    return {
      prevSample: new Tensor("float32", sample.shape, prev),
      predOriginalSample: new Tensor("float32", sample.shape, original),
    };
  }

  /** (1 − sigma_t)·x_0 + sigma_t·noise; every timestep must be one of `timesteps`. */
  addNoise(original: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    return combinePerSample(`${NAME}.addNoise`, ["original", "noise"], [original, noise], timesteps, (t) => {
      const sigma = this.sigmas[this.#cursor.find(t)]!;
      return [1 - sigma, sigma];
    });
  }

  /** The training target, noise − sample, at every timestep. */
  getVelocity(sample: Tensor, noise: Tensor, timesteps: Tensor): Tensor<"float32"> {
    return combinePerSample(`${NAME}.getVelocity`, ["sample", "noise"], [sample, noise], timesteps, () => [-1, 1]);
  }

  #dynamicShift(mu: number | undefined): number {
    if (mu === undefined || !Number.isFinite(mu)) {
      throw new ConfigError(
        `${NAME}.setTimesteps: use_dynamic_shifting needs options.mu, a number that follows the size of the image; ` +
          `got ${mu}.`,
      );
    }
    return this.config.time_shift_type === "exponential" ? Math.exp(mu) : mu;
  }
}

/** s·sigma / (1 + (s − 1)·sigma). */
const shifted = (sigma: number, shift: number): number => (shift * sigma) / (1 + (shift - 1) * sigma);

/** Moves levels, 1 staying, so that the last one is `terminal`. */
function stretched(sigmas: Float64Array, terminal: number): Float64Array {
  const factor = (1 - sigmas.at(-1)!) / (1 - terminal);
  if (factor > 0) return sigmas.map((sigma) => 1 - (1 - sigma) / factor);
  throw new ConfigError(
    `${NAME}.setTimesteps: shift_terminal=${terminal} needs a last noise level below 1; take at least 2 steps.`,
  );
}

/** float32, so that a timestep survives being put into a float32 tensor. */
const timestepsOf = (sigmas: Float64Array, total: number): number[] =>
  Array.from(sigmas, (sigma) => Math.fround(Math.fround(sigma) * total));

function checkSigmas(sigmas: readonly number[], steps: number): void {
  if (sigmas.length !== steps) {
    throw new ConfigError(`${NAME}.setTimesteps: sigmas must be ${steps}, as many as steps; got ${sigmas.length}.`);
  }
  const wrong = sigmas.find((sigma) => !(sigma > 0 && sigma <= 1));
  if (wrong === undefined) return;
  throw new ConfigError(`${NAME}.setTimesteps: sigmas must lie above 0, up to 1; got ${wrong}.`);
}
