// Weights of an earlier training, to go on from: also from the float16 files of a pipeline, where no checkpoint is left.

import { FormatError } from "../../src/errors.js";
import { readSafetensors } from "../../src/storage/index.js";
import { float16ToFloat32 } from "../../src/tensor/float16.js";
import type { Tensor } from "../../src/tensor/tensor.js";

/**
 * Replaces weights by those of a file, widened to float32 where they are float16.
 *
 * @throws {FormatError} If a weight is missing there, or has another shape.
 */
export async function takeWeights(file: string, weights: ReadonlyMap<string, Tensor<"float32">>): Promise<void> {
  const { tensors } = await readSafetensors(file);
  for (const [name, { data, shape }] of weights) {
    const found = tensors.get(name);
    if (found?.shape.join() !== shape.join()) {
      const there = found ? `[${found.shape}]` : "nothing";
      throw new FormatError(file, `"${name}" must have the shape [${shape}]; there is ${there}.`);
    }
    data.set(found.dtype === "float16" ? float16ToFloat32(found.data as Uint16Array) : (found.data as Float32Array));
  }
}
