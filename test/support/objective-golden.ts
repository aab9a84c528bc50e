// The golden values of test/reference/objective.safetensors, and their settings.

import { readSafetensors } from "../../src/storage/index.js";
import type { Tensor } from "../../src/tensor/tensor.js";

/** As test/parity/make-objective-golden.py writes them. */
export interface ObjectiveGolden {
  settings: {
    configs: Record<"sd" | "zero", Record<string, unknown>>;
    gamma: number;
    p2: { gamma: number; k: number };
    huberC: number;
    timesteps: number[];
    logit: { logit_mean: number; logit_std: number };
    modeScale: number;
    sizes: [number, number][];
    multires: { discount: number };
  };
  tensor(name: string): Tensor<"float32">;
  has(name: string): boolean;
}

/** Reads them. */
export async function objectiveGolden(): Promise<ObjectiveGolden> {
  const { tensors, metadata } = await readSafetensors("test/reference/objective.safetensors");
  return {
    settings: JSON.parse(metadata.settings!),
    has: (name) => tensors.has(name),
    tensor(name) {
      const found = tensors.get(name);
      if (!found) throw new Error(`objective.safetensors has no ${name}`);
      return found as Tensor<"float32">;
    },
  };
}
