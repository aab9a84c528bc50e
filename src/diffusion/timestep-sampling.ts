// Which noise levels a batch is trained at: draws timesteps from a seeded generator.

import { ConfigError, quoted } from "../errors.js";
import { type Generator, rand, randint, randn, randperm } from "../tensor/random.js";
import { dynamicShift } from "./noise-process.js";
import type { Objective } from "./objective.js";

/** How timesteps are spread over the range. */
export const TIMESTEP_SAMPLINGS = ["uniform", "stratified", "logit-normal", "mode"] as const;

/** One of `TIMESTEP_SAMPLINGS`. */
export type TimestepSampling = (typeof TIMESTEP_SAMPLINGS)[number];

/** How timesteps are drawn. */
export interface TimestepOptions {
  /**
   * A place u in 0 … 1, from image to noise, for each of B samples. Default `uniform`.
   *
   * uniform: each on its own. stratified: one from each of B equal parts of the range in random order, which covers the
   * range in every batch and so lowers the noise of the gradient. logit-normal: u = sigmoid(m + s·ε), ε standard normal.
   * mode: u = 1 − v − k (cos²(πv/2) − 1 + v), v uniform.
   *
   * @see Esser et al. 2024, arXiv:2403.03206, section 3.1
   */
  timestepSampling?: TimestepSampling;
  /** m of `logit-normal`: above 0 towards noise. (diffusers' scripts count from noise to image: there below 0.) Default 0. */
  logitMean?: number;
  /** s of `logit-normal`, above 0. Default 1. */
  logitStd?: number;
  /** k of `mode`, from −1 to 2 / (π − 2): above 0 towards the middle. Default 1.29. */
  modeScale?: number;
  /**
   * s > 0: moves u to s·u / (1 + (s − 1)·u), above 1 towards noise, where the caption decides what is drawn. Default: what
   * the model's scheduler says, 1 without flow. @see Esser et al. 2024, arXiv:2403.03206, section 5.3.2
   */
  timestepShift?: number;
  /** A shift that grows with the size of the image, as FLUX's (`dynamicShift`). */
  dynamicTimestepShift?: boolean;
  /** Timesteps are drawn from this one … Default 0. */
  minTimestep?: number;
  /** … up to this one, which is not drawn where timesteps are integers. Default T. */
  maxTimestep?: number;
}

/** Defaults of {@link TimestepOptions}; diffusers' where it has them. */
export const TIMESTEP_DEFAULTS = {
  timestepSampling: "uniform",
  logitMean: 0,
  logitStd: 1,
  modeScale: 1.29,
  minTimestep: 0,
} as const;

/** The steepest and the flattest `mode` that still gives every u once. */
const MODE_SCALES = { min: -1, max: 2 / (Math.PI - 2) } as const;

/** What a draw is for. */
export interface TimestepDraw {
  objective: Pick<Objective, "trainTimesteps" | "isContinuous" | "shiftFor">;
  /** B. */
  count: number;
  latentHeight: number;
  latentWidth: number;
  generator: Generator;
}

/** @throws {ConfigError} If an option has a value that it cannot have. */
export function checkTimestepOptions(options: TimestepOptions, trainTimesteps: number): void {
  const { timestepSampling: sampling = TIMESTEP_DEFAULTS.timestepSampling, timestepShift: shift = 1 } = options;
  const { logitMean = 0, logitStd = 1, modeScale = 1 } = options;
  const { minTimestep: min = 0, maxTimestep: max = trainTimesteps } = options;
  const refuse = (name: keyof TimestepOptions, rule: string): never => {
    throw new ConfigError(`${name} must be ${rule}; got ${quoted(options[name])}.`);
  };
  if (!TIMESTEP_SAMPLINGS.includes(sampling)) refuse("timestepSampling", `one of ${TIMESTEP_SAMPLINGS.join(", ")}`);
  if (!(shift > 0 && shift < Number.POSITIVE_INFINITY)) refuse("timestepShift", "a finite number above 0");
  if (!Number.isFinite(logitMean)) refuse("logitMean", "a finite number");
  if (!(logitStd > 0 && logitStd < Number.POSITIVE_INFINITY)) refuse("logitStd", "a finite number above 0");
  if (!(modeScale >= MODE_SCALES.min && modeScale <= MODE_SCALES.max)) {
    refuse("modeScale", `from ${MODE_SCALES.min} to ${MODE_SCALES.max.toFixed(4)}`);
  }
  if (!Number.isSafeInteger(min) || min < 0) refuse("minTimestep", "an integer of 0 or more");
  if (!Number.isSafeInteger(max) || max > trainTimesteps)
    refuse("maxTimestep", `an integer of ${trainTimesteps} or less`);
  if (min >= max) refuse("minTimestep", `below maxTimestep ${max}`);
  if (options.dynamicTimestepShift && options.timestepShift !== undefined) {
    throw new ConfigError(`timestepShift ${shift} and dynamicTimestepShift exclude each other; leave one out.`);
  }
}

/** Whether timesteps are drawn before a batch's other numbers; the others come after the jitter of its latents. */
export const drawsTimestepsFirst = ({ timestepSampling }: TimestepOptions): boolean =>
  timestepSampling === "stratified";

/**
 * B timesteps: integers in `minTimestep` … `maxTimestep` − 1, or of a continuous objective float32 numbers in between.
 *
 * What is drawn: uniform without a shift, of integers, as `randint`; uniform otherwise, and mode, as `rand`; logit-normal as
 * `randn`; stratified as `randperm`, then B uniform numbers.
 */
export function drawTimesteps(options: TimestepOptions, draw: TimestepDraw): number[] {
  const { objective, count, generator } = draw;
  const { timestepSampling: sampling = TIMESTEP_DEFAULTS.timestepSampling } = options;
  const { minTimestep: min = 0, maxTimestep: max = objective.trainTimesteps } = options;
  const shift = shiftOf(options, draw);
  if (sampling === "uniform" && shift === 1 && !objective.isContinuous) {
    return Array.from(randint(min, max, [count], { generator }).data, Number);
  }
  return drawPlaces(sampling, options, count, generator).map((place) => {
    const moved = (shift * place) / (1 + (shift - 1) * place);
    if (objective.isContinuous) return Math.fround(min + moved * (max - min));
    return Math.min(max - 1, min + Math.floor(moved * (max - min)));
  });
}

function shiftOf(options: TimestepOptions, { objective, latentHeight, latentWidth }: TimestepDraw): number {
  if (options.timestepShift !== undefined) return options.timestepShift;
  if (options.dynamicTimestepShift) return dynamicShift(latentHeight, latentWidth);
  return objective.shiftFor(latentHeight, latentWidth);
}

/** Places in 0 … 1, from image to noise. */
function drawPlaces(
  sampling: TimestepSampling,
  { logitMean, logitStd, modeScale }: TimestepOptions,
  count: number,
  generator: Generator,
): number[] {
  switch (sampling) {
    case "uniform":
      return Array.from(rand([count], { generator }).data);
    case "stratified": {
      const order = Array.from(randperm(count, { generator }).data, Number);
      return order.map((part) => (part + generator.uniform()) / count);
    }
    case "logit-normal": {
      const { logitMean: mean, logitStd: std } = { ...TIMESTEP_DEFAULTS, ...given({ logitMean, logitStd }) };
      return Array.from(randn([count], { generator }).data, (normal) => 1 / (1 + Math.exp(-(mean + std * normal))));
    }
    case "mode": {
      const scale = modeScale ?? TIMESTEP_DEFAULTS.modeScale;
      return Array.from(
        rand([count], { generator }).data,
        (v) => 1 - v - scale * (Math.cos((Math.PI * v) / 2) ** 2 - 1 + v),
      );
    }
  }
}

const given = (values: Record<string, number | undefined>): Record<string, number> =>
  Object.fromEntries(Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== undefined));
