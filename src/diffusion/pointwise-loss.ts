// Losses between prediction and target, element by element, in a graph: per sample masked and weighted.

import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import type { NoiseLevel } from "./noise-process.js";

/** What losses are made from. */
export interface LossInputs {
  /** The model's prediction, `[B, C, H, W]`. */
  output: Value;
  /** What it should be, of the same shape. */
  target: Value;
  /** float32 `[B]`. */
  timesteps: Value;
  /** How much each sample counts, float32 `[B]`; 1 by default. */
  lossWeights?: Value;
  /** How much each place of a latent counts, float32 `[B, 1, H, W]`, 0 or more; 1 by default. */
  lossMask?: Value;
  /** Where the loss turns from quadratic to linear, float32 `[B]`, above 0: for losses that ask for it. */
  huberC?: Value;
}

/** Inputs of a loss that a batch brings beside its target. */
export const LOSS_INPUT_NAMES = ["lossWeights", "lossMask", "huberC"] as const;

/** One of `LOSS_INPUT_NAMES`. */
export type LossInputName = (typeof LOSS_INPUT_NAMES)[number];

/** Loss terms by name, which add up to the loss. */
export interface LossTerms {
  /** The names, in the order in which they are reported. */
  readonly lossNames: readonly string[];
  /** What every batch must bring, because the terms are others without. */
  readonly neededInputs?: readonly LossInputName[];
  /** Scalars with their weights applied. */
  lossTerms(inputs: LossInputs): Readonly<Record<string, Value>>;
  /** The first term of each sample, `[B]`: masked, not weighted, so that it compares between weightings. */
  sampleLosses?(inputs: LossInputs): Value;
}

/** Kinds of losses, kohya's `loss_type` (its `l2` is `mse`). */
export const LOSS_KINDS = ["mse", "l1", "huber", "smooth-l1"] as const;

/** One of `LOSS_KINDS`. */
export type LossKind = (typeof LOSS_KINDS)[number];

/** Names under which the kinds are reported. */
const REPORTED: Readonly<Record<LossKind, string>> = { mse: "mse", l1: "l1", huber: "huber", "smooth-l1": "smooth_l1" };

/** Whether a kind needs {@link LossInputs.huberC}. */
export const hasThreshold = (kind: LossKind): boolean => kind === "huber" || kind === "smooth-l1";

/**
 * A loss of d = output − target, its mean over C, H, W and B.
 *
 * mse: d². l1: |d|, with the gradient 0 at 0. huber: 2c (√(d² + c²) − c). smooth-l1: 2 (√(d² + c²) − c). With a mask m the
 * elements are m·l, their mean still over all places; with weights w a sample's mean counts w_b times, the mean still over B.
 *
 * @param neededInputs - Beside those that the kind itself needs.
 * @see kohya-ss/sd-scripts, `conditional_loss`; Charbonnier et al. 1997, doi:10.1109/83.551699 (the smooth forms)
 */
export function pointwiseLoss(kind: LossKind = "mse", neededInputs: readonly LossInputName[] = []): LossTerms {
  const name = REPORTED[kind];
  const elements = ({ output, target, lossMask, huberC }: LossInputs): Value => {
    const plain = elementwise(kind, ops.sub(output, target), huberC);
    return lossMask ? ops.mul(plain, lossMask) : plain;
  };
  const sampleLosses = (inputs: LossInputs): Value =>
    ops.reduceMean(elements(inputs), inputs.output.shape.map((_, i) => i).slice(1));
  return {
    lossNames: [name],
    neededInputs: [...neededInputs, ...(hasThreshold(kind) ? (["huberC"] as const) : [])],
    lossTerms(inputs) {
      const { lossWeights } = inputs;
      const losses = lossWeights ? ops.mul(sampleLosses(inputs), lossWeights) : elements(inputs);
      return { [name]: ops.reduceMean(losses) };
    },
    sampleLosses,
  };
}

function elementwise(kind: LossKind, difference: Value, huberC: Value | undefined): Value {
  const square = ops.mul(difference, difference);
  if (kind === "mse") return square;
  if (kind === "l1") return ops.sqrt(square);
  const [batch, ...rest] = difference.shape;
  const c = ops.reshape(huberC!, [batch!, ...rest.map(() => 1)]);
  const excess = ops.mul(ops.sub(ops.sqrt(ops.add(square, ops.mul(c, c))), c), 2);
  return kind === "huber" ? ops.mul(excess, c) : excess;
}

/** mse = mean (output − target)². */
export const MEAN_SQUARED_ERROR: LossTerms = pointwiseLoss("mse");

/** How the threshold c of `huber` and `smooth-l1` follows the timestep. */
export const HUBER_SCHEDULES = ["constant", "exponential", "snr"] as const;

/** One of `HUBER_SCHEDULES`. */
export type HuberSchedule = (typeof HUBER_SCHEDULES)[number];

/** kohya's defaults. */
export const HUBER_DEFAULTS = { huberC: 0.1, huberSchedule: "snr" } as const;

/**
 * c at a timestep, from the `huberC` at the noisy end.
 *
 * constant: huberC. exponential: huberC^(t / T). snr: (1 − huberC) / (1 + σ/α)² + huberC. The last two begin near 1 without
 * noise, where details are learned, and tighten towards noise, where outliers are.
 *
 * @see Khrapov et al. 2024, arXiv:2403.16728; kohya-ss/sd-scripts, `get_huber_threshold_if_needed`
 */
export function huberThreshold(
  schedule: HuberSchedule,
  huberC: number,
  { alpha, sigma }: NoiseLevel,
  progress: number,
): number {
  if (schedule === "constant") return huberC;
  if (schedule === "exponential") return huberC ** progress;
  return (1 - huberC) / (1 + sigma / alpha) ** 2 + huberC;
}
