// Drawings of many prompts, and the true ones as they are compared.

import type { AnyPipeline, GenerateResult } from "../pipelines/index.js";
import { tensor } from "../tensor/tensor.js";
import type { ImageDataset } from "../training/index.js";
import { GUIDANCE_SCALE } from "./embedded-model.js";
import { type DrawingFeatures, drawingFeatures } from "./nearest.js";

/** Drawings at once. */
const AT_ONCE = 16;

/** One drawing for each prompt; the route is that of the first ones. */
export async function drawPrompts(
  pipeline: AnyPipeline,
  prompts: readonly string[],
  { seed, steps, signal }: { seed: number; steps: number; signal?: AbortSignal | undefined },
): Promise<GenerateResult> {
  const results: GenerateResult[] = [];
  for (let first = 0; first < prompts.length; first += AT_ONCE) {
    const prompt = prompts.slice(first, first + AT_ONCE);
    const options = { prompt, seed, steps, guidanceScale: GUIDANCE_SCALE, ...(signal && { signal }) };
    results.push(await pipeline.generate(options));
  }
  return { ...results[0]!, images: results.flatMap(({ images }) => images) };
}

/** What is compared of a dataset's drawings, in their order. */
export function trueFeatures(dataset: ImageDataset): Promise<DrawingFeatures[]> {
  const shape = [3, dataset.imageSize, dataset.imageSize];
  return Promise.all(
    Array.from({ length: dataset.size }, async (_, i) => drawingFeatures(tensor(await dataset.image(i), shape))),
  );
}
