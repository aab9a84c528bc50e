// What a diffusion model is told beside latents and time: text, and in SDXL sizes. One row per image or prompt.

import type { Tensor } from "../tensor/tensor.js";
import { concatRows, repeatRows } from "./batches.js";

/** Conditions of B images. L tokens, D text features, P features of the pooled text. */
export interface Conditions {
  /** `[B, L, D]`. */
  encoderHiddenStates: Tensor<"float32">;
  /** SDXL's. */
  addedConditions?: {
    /** `[B, P]`. */
    textEmbeds: Tensor<"float32">;
    /** Original height and width, crop from top and left, target height and width: `[B, 6]`. */
    timeIds: Tensor<"float32">;
  };
}

/** What to draw, and what to be guided away from where there is guidance. */
export interface GuidedConditions {
  conditional: Conditions;
  unconditional?: Conditions;
}

/** The rows of `a`, then those of `b`; both of one model. */
export function concatConditions(a: Conditions, b: Conditions): Conditions {
  return {
    encoderHiddenStates: concatRows([a.encoderHiddenStates, b.encoderHiddenStates]),
    ...(a.addedConditions &&
      b.addedConditions && {
        addedConditions: {
          textEmbeds: concatRows([a.addedConditions.textEmbeds, b.addedConditions.textEmbeds]),
          timeIds: concatRows([a.addedConditions.timeIds, b.addedConditions.timeIds]),
        },
      }),
  };
}

/** Every row `times` times in place. */
export function repeatConditions({ encoderHiddenStates, addedConditions }: Conditions, times: number): Conditions {
  return {
    encoderHiddenStates: repeatRows(encoderHiddenStates, times),
    ...(addedConditions && {
      addedConditions: {
        textEmbeds: repeatRows(addedConditions.textEmbeds, times),
        timeIds: repeatRows(addedConditions.timeIds, times),
      },
    }),
  };
}
