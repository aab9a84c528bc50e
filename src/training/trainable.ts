// What the trainer trains: a set of float32 parameters and a way to get a batch's loss and gradients.

import type { Tensor } from "../tensor/tensor.js";

/** One batch of a diffusion objective. B batch, C×h×w latent size. */
export interface DiffusionBatch {
  /** Noisy latents z_t, `[B, C, h, w]`. */
  latents: Tensor<"float32">;
  /** `[B]`. */
  timesteps: Tensor;
  /** What the model must predict (noise or velocity), `[B, C, h, w]`. */
  target: Tensor<"float32">;
  /** Text states `[B, T, D]`, where the text encoder is frozen. */
  encoderHiddenStates?: Tensor;
  /** Token ids, int64 `[B, T]`, where the text encoder is trained. */
  inputIds?: Tensor;
  /** SDXL's pooled text and sizes. */
  addedConditions?: { textEmbeds: Tensor; timeIds: Tensor };
}

/** Losses of a batch; `fecl` is 0 where there is no consistency loss. */
export interface Losses {
  loss: number;
  mse: number;
  fecl: number;
}

/** A compiled training step over parameters that the caller may change in place. */
export interface Trainable {
  /** By name; what an optimizer updates. */
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** Losses and the gradient of `loss` for every parameter, under the same names. Changes nothing. */
  compute(batch: DiffusionBatch): Promise<Losses & { gradients: Map<string, Float32Array> }>;
}
