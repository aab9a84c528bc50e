// What a denoiser is told beside latents and time, as one type from the encoders to the graph's inputs.

import { ShapeError } from "../errors.js";
import { concatRows, repeatRows, sliceRows, takeRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import { LOSS_INPUT_NAMES } from "./pointwise-loss.js";

/**
 * Named tensors of one row per sample, under diffusers' argument names in camelCase: `encoderHiddenStates [B, T, D]`,
 * SDXL's `textEmbeds [B, P]` and `timeIds [B, 6]`, `pooledProjections`, `guidance`, `classLabels`, `timestepCond`, … Where a text encoder is trained,
 * `inputIds [B, T]` stand in place of `encoderHiddenStates`. The denoiser says which names it takes.
 */
export type Conditioning = Readonly<Record<string, Tensor>>;

/** What may be given with latents and timesteps: the names of {@link Conditioning}, SDXL's two also as diffusers nests them. */
export interface ConditioningInputs {
  /** Text states `[B, T, D]`. */
  encoderHiddenStates?: Tensor;
  /** SDXL's pooled text `[B, P]` and sizes `[B, 6]` (the refiner's `[B, 5]`). */
  addedConditions?: { textEmbeds: Tensor; timeIds: Tensor };
  /** For checkpoints with classes. */
  classLabels?: Tensor;
  /** For checkpoints that were distilled with guidance: float32 `[B, time_cond_proj_dim]`. */
  timestepCond?: Tensor;
  /** Pooled text `[B, P]` of Stable Diffusion 3 and FLUX.1. */
  pooledProjections?: Tensor;
  /** Z-Image: which text states are tokens (1) and which fill up (0), float32 `[B, T]`. Default: all are tokens. */
  encoderAttentionMask?: Tensor;
  /** For checkpoints that were distilled with guidance (FLUX): the scales, float32 `[B]`. */
  guidance?: Tensor;
}

/** What a batch has beside what a denoiser is told. */
const OTHERS: ReadonlySet<string> = new Set(["latents", "timesteps", "target", "noise", ...LOSS_INPUT_NAMES]);

/** The flat form: the entries of `addedConditions` beside the others, what is undefined left out. */
export function conditioningOf(inputs: ConditioningInputs): Conditioning {
  const { addedConditions, ...rest } = inputs as Record<string, unknown>;
  const named = { ...rest, ...(addedConditions as object | undefined) } as Record<string, Tensor | undefined>;
  return Object.fromEntries(
    Object.entries(named).filter((entry): entry is [string, Tensor] => !OTHERS.has(entry[0]) && isTensor(entry[1])),
  );
}

const isTensor = (value: unknown): value is Tensor =>
  typeof value === "object" && value !== null && "dtype" in value && "shape" in value;

/** The given rows of every tensor. */
export const takeConditioning = (conditioning: Conditioning, rows: readonly number[]): Conditioning =>
  mapped(conditioning, (value) => takeRows(value, rows));

/** Rows `from` up to, not including, `to`; shares memory. */
export const sliceConditioning = (conditioning: Conditioning, from: number, to: number): Conditioning =>
  mapped(conditioning, (value) => sliceRows(value, from, to));

/** Every row `times` times in place. */
export const repeatConditioning = (conditioning: Conditioning, times: number): Conditioning =>
  mapped(conditioning, (value) => repeatRows(value, times));

/**
 * The rows of each, one after the other.
 *
 * @throws {ShapeError} If they have other names, or tensors that do not fit each other.
 */
export function concatConditioning(parts: readonly Conditioning[]): Conditioning {
  const [first = {}] = parts;
  const names = Object.keys(first);
  for (const part of parts) {
    const odd = [...names, ...Object.keys(part)].find((name) => !(name in part) || !(name in first));
    if (odd !== undefined) throw new ShapeError(`conditioning: "${odd}" is in some of the parts only.`);
  }
  return Object.fromEntries(names.map((name) => [name, concatRows(parts.map((part) => part[name]!))]));
}

/**
 * Replaces samples' conditions by the empty caption's.
 *
 * @param dropped - One per row.
 * @param empty - One row each of what a dropped caption changes; other names stay (sizes, classes).
 */
export function dropConditioning(
  conditioning: Conditioning,
  dropped: readonly boolean[],
  empty: Conditioning,
): Conditioning {
  if (!dropped.includes(true)) return conditioning;
  const rows = dropped.map((isDropped, row) => (isDropped ? dropped.length : row));
  return Object.fromEntries(
    Object.entries(conditioning).map(([name, value]) => {
      const replacement = empty[name];
      return [name, replacement ? takeRows(concatRows([value, replacement]), rows) : value];
    }),
  );
}

function mapped(conditioning: Conditioning, change: (value: Tensor) => Tensor): Conditioning {
  return Object.fromEntries(Object.entries(conditioning).map(([name, value]) => [name, change(value)]));
}
