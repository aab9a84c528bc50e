// Compares a CLIP text model with what make-clip-golden.py wrote.

import { expect } from "vitest";
import type { CLIPTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { readSafetensors } from "../../src/storage/index.js";
import type { Tensor } from "../../src/tensor/tensor.js";
import { relativeError } from "./relative-error.js";

/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;

/**
 * Checks every hidden state, with and without the final normalization, and the pooled states; frees both models.
 *
 * @param legacy - The same model with the legacy `eos_token_id` 2.
 * @param file - An `expected.safetensors`.
 */
export async function checkEncodeAll(
  model: CLIPTextModel,
  legacy: CLIPTextModel,
  file: string,
  activation: string,
): Promise<void> {
  const { tensors } = await readSafetensors(file);
  const get = (name: string) => tensors.get(`${activation}${name}`) as Tensor<"float32">;
  const close = (actual: Tensor<"float32">, expected: Float32Array, shape: readonly number[]) => {
    expect(actual.shape).toEqual(shape);
    expect(relativeError(actual.data, expected)).toBeLessThan(TOLERANCE);
  };
  const inputIds = tensors.get("input_ids") as Tensor<"int64">;
  const last = get("");
  const pooled = get(".pooled");
  const layers = model.config.num_hidden_layers;
  for (const finalNorm of [true, false]) {
    const expected = get(finalNorm ? ".normed_hidden_states" : ".hidden_states");
    expect(expected.shape[0]).toBe(layers + 1);
    for (let hiddenLayersFromEnd = 0; hiddenLayersFromEnd <= layers; hiddenLayersFromEnd++) {
      const states = await model.encodeAll(inputIds, { hiddenLayersFromEnd, finalNorm });
      const start = (layers - hiddenLayersFromEnd) * last.size;
      close(states.lastHiddenState, last.data, last.shape);
      close(states.hiddenState, expected.data.subarray(start, start + last.size), last.shape);
      close(states.pooled, pooled.data, pooled.shape);
    }
  }
  close((await legacy.encodeAll(inputIds)).pooled, get(".pooled_legacy").data, pooled.shape);
  await model.release();
  await legacy.release();
}
