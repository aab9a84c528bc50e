// A router's gates along a training: the same noisy latents at every step, so that only the router differs.

import type { FeRAModel } from "../adapters/index.js";
import { evenTimesteps } from "../adapters/index.js";
import type { Objective } from "../diffusion/index.js";
import { Generator } from "../tensor/random.js";
import { meanRows } from "../tensor/rows.js";
import { type EncodedDataset, type EncodedRows, rowsInMemory } from "./encoded-dataset.js";
import { diffusionBatch } from "./noised-batch.js";
import type { GatesAtStep } from "./report/step-report.js";

const SEED = 0;
const TIMESTEPS = 8;
/** Images that the gates are means over, spread evenly over those of the first one's size. */
const IMAGES = 4;

/** Mean gates at eight timesteps, spread evenly over all. The denoiser is not run. */
export async function gatesAlong(
  fera: FeRAModel,
  data: EncodedDataset | EncodedRows,
  objective: Objective,
): Promise<readonly GatesAtStep[]> {
  const source = "read" in data ? data : rowsInMemory(data);
  // Images of one size are looked at together.
  const { latentHeight, latentWidth } = source.latentSize(0);
  const alike = Array.from({ length: source.size }, (_, i) => i).filter((i) => {
    const size = source.latentSize(i);
    return size.latentHeight === latentHeight && size.latentWidth === latentWidth;
  });
  const images = Math.min(IMAGES, alike.length);
  const draws = Array.from({ length: images }, (_, i) => ({ index: alike[Math.floor((i * alike.length) / images)]! }));
  const read = { ...(await source.read(draws)), empty: source.empty };
  const rows = draws.map((_, i) => i);
  const generator = new Generator(SEED);
  const result: GatesAtStep[] = [];
  for (const timestep of evenTimesteps(TIMESTEPS, objective.trainTimesteps)) {
    const batch = diffusionBatch(read, rows, { objective, generator, timesteps: rows.map(() => timestep) });
    const { gates } = await fera.route(batch.latents, batch.timesteps);
    result.push({ timestep, gates: meanRows(gates) });
  }
  return result;
}
