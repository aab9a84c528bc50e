// Which conditioning a denoiser takes, read off the inputs that it declares.

import { Graph } from "../graph/index.js";
import type { Denoiser } from "./denoiser.js";

/**
 * The names of the conditioning that a denoiser takes, each with the shape of one row: `timestepCond` → `[features]`.
 *
 * Sizes that follow the inputs (tokens, for one) are those of its smallest shape. Nothing is run.
 */
export function conditioningShapes(denoiser: Denoiser): ReadonlyMap<string, readonly number[]> {
  const { latents: _l, timesteps: _t, ...conditioning } = denoiser.declareInputs(new Graph(), denoiser.smallestShape);
  return new Map(Object.entries(conditioning).map(([name, { shape }]) => [name, shape.slice(1)]));
}
