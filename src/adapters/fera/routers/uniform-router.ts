// No router: all experts are equally open, as if they were one adapter of rank E·r.

import * as ops from "../../../graph/index.js";
import { tensor } from "../../../tensor/tensor.js";
import type { FeRAConfig } from "../fera-config.js";
import type { Router } from "./router.js";

/** w = 1/E. */
export const uniformRouter = ({ numExperts }: FeRAConfig): Router => ({
  shapes: new Map(),
  initialize: () => new Map(),
  gates({ energies }) {
    const row = energies.graph.constant(tensor(new Float32Array(numExperts).fill(1 / numExperts), [1, numExperts]));
    return ops.expand(row, [energies.shape[0]!, numExperts]);
  },
});
