// One picture of a request: drawn, and told what it was made with. Free of files: where it is kept is the caller's.

import type { ImageTensor } from "../images/image-tensor.js";
import { describeGeneration } from "../pipelines/generation-settings/describe-generation.js";
import type { SamplerName } from "../pipelines/generation-settings/sampler-names.js";
import type { AdapterSetting, GenerationSettings } from "../pipelines/generation-settings/settings.js";
import type { AnyPipeline } from "../pipelines/load-pipeline.js";
import { schedulerFor } from "../pipelines/samplers.js";
import type { DrawCell } from "./draw-cells.js";
import type { DrawnImage } from "./protocol.js";

/** How a cell is drawn. */
export interface CellDrawing {
  /** Name of the model in the settings. */
  model: string;
  /** The name under which an adapter of the cell is loaded. */
  loadedAs(id: string): string;
  /** Its name in the settings, and what the page calls it. */
  nameOf(id: string): string;
  labelOf(loaded: string): string;
  /** Awaited after every step. @param share - Of all steps. */
  onStep(share: number): void | Promise<void>;
  signal: AbortSignal;
}

/** What was drawn, without the name under which it is kept. */
export interface DrawnCell {
  image: ImageTensor;
  settings: GenerationSettings;
  drawn: Omit<DrawnImage, "id" | "seconds">;
}

/** Draws with the adapters that are loaded. @throws {DOMException} AbortError, between two steps. */
export async function drawCell(pipeline: AnyPipeline, cell: DrawCell, how: CellDrawing): Promise<DrawnCell> {
  const { x, y, withoutAdapters, prompt, negativePrompt, seed, steps, guidanceScale, sampler, width, height } = cell;
  const used = withoutAdapters ? [] : cell.adapters;
  const options = {
    ...{ prompt, seed, steps, guidanceScale },
    ...(negativePrompt !== undefined && { negativePrompt }),
    ...(width !== undefined && { width }),
    ...(height !== undefined && { height }),
    ...(sampler !== undefined && { scheduler: schedulerFor(pipeline, sampler as SamplerName) }),
  };
  const { images, routes } = await pipeline.generate({
    ...options,
    adapters: [used.length > 0 && Object.fromEntries(used.map(({ id, scale }) => [how.loadedAs(id), scale]))],
    onStep: ({ step, steps: visited }) => how.onStep(step / visited),
    signal: how.signal,
  });
  const image = images[0]!;
  const adapters = used.map(({ id, scale }): AdapterSetting => ({ name: how.nameOf(id), scale }));
  return {
    image,
    settings: {
      ...describeGeneration(pipeline, options, { image, seed, position: 0, count: 1 }),
      model: how.model,
      ...(adapters.length > 0 && { adapters }),
    },
    drawn: {
      ...{ x, y, withoutAdapters, seed, width: image.width, height: image.height },
      routes: [...routes].map(([loaded, route]) => ({ adapter: how.labelOf(loaded), route })),
    },
  };
}
