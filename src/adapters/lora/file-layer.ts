// A layer of a LoRA as a file has it.

import type { Tensor } from "../../tensor/tensor.js";

/** One adapted layer as a file has it. */
export interface FileLayer {
  /** The layer's name in the file, or its path. */
  name: string;
  /** `[r, in]`, or `[r, in, k, k]`. */
  down: Tensor<"float32">;
  /** `[out, r]`, or `[out, r, 1, 1]`. */
  up: Tensor<"float32">;
  /** DoRA's, one number per output or per input. */
  magnitude?: { axis: "output" | "input"; values: Tensor<"float32"> } | undefined;
  /** The product is scaled by alpha / r, or alpha / √r for rsLoRA. */
  alpha: number;
}
