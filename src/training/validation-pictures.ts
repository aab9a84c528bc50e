// Pictures along a training, of what would be saved at that step: drawn as `generate` draws them. Node only.

import type { AdapterModel } from "../adapters/index.js";
import { renderGrid } from "../images/grid.js";
import { writePng } from "../images/image-file.js";
import type { AnyPipeline } from "../pipelines/index.js";
import type { Scheduler } from "../schedulers/index.js";
import type { ParameterAverage } from "./average.js";
import { prepareOutputFolder } from "./checkpoint.js";
import { outputPath, validationPicture } from "./output-folder.js";

/** When and how pictures are drawn. */
export interface ValidationOptions {
  validationPrompts?: readonly string[] | undefined;
  /** By default a quarter of all steps; the last step is always drawn. */
  validateEvery?: number | undefined;
  steps: number;
  seed: number;
  /** Side of the pictures in pixels: the training's. */
  size: number;
  output: string;
  /** The pipeline's own by default. */
  scheduler?: Scheduler | undefined;
}

/** Draws the validation prompts, with the averaged adapters where those are what is saved. */
export class ValidationPictures {
  /** Holds the average while the training goes on with its own adapters. */
  private readonly averaged: AdapterModel | undefined;

  constructor(
    private readonly pipeline: AnyPipeline,
    private readonly model: AdapterModel,
    private readonly average: ParameterAverage | undefined,
    private readonly options: ValidationOptions,
  ) {
    if (average && (options.validationPrompts ?? []).length > 0) {
      this.averaged = model.copy();
    }
  }

  /** Draws where this step is one to draw. @returns The picture's path. */
  async draw(step: number): Promise<string | undefined> {
    const { validationPrompts = [], steps, output, seed, size, scheduler } = this.options;
    const every = this.options.validateEvery ?? Math.ceil(steps / 4);
    if (validationPrompts.length === 0 || (step % every !== 0 && step !== steps)) return undefined;
    const shown = this.averaged ?? this.model;
    if (this.averaged) {
      for (const [name, { data }] of this.average!.values) this.averaged.parameters.get(name)!.data.set(data);
    }
    this.pipeline.useAdapters(shown);
    const images = [];
    // One by one: as `generate` with this adapter, prompt and seed draws them.
    for (const prompt of validationPrompts) {
      const result = await this.pipeline.generate({ prompt, seed, width: size, height: size, scheduler });
      images.push(...result.images);
    }
    await prepareOutputFolder(outputPath(output, "validation"));
    const path = validationPicture(output, step);
    await writePng(path, await renderGrid({ rows: [images], columnTitles: [...validationPrompts] }));
    return path;
  }

  /** Frees what was compiled for the average. */
  async release(): Promise<void> {
    await this.averaged?.release();
  }
}
