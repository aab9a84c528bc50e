// What runs of one process share: the model as it is loaded, drawings as they are encoded, and what the base predicts for one
// noise. None of it changes a number of a run; it saves each of them what another has done.

import { knownNames } from "../demo/index.js";
import { ConfigError } from "../errors.js";
import { type AnyPipeline, loadPipeline } from "../pipelines/index.js";
import { type DatasetRows, openDatasetRows } from "../training/cache/dataset-rows.js";
import { checkCaptions, type ImageDataset } from "../training/index.js";
import type { MeasuredErrors } from "./measures.js";
import type { RunSpec } from "./records.js";
import { openTask, type TaskData, taskName } from "./tasks.js";

/** Drawings of the base's own style on which forgetting is measured. */
const OWN_DRAWINGS = 32;
/** Tasks whose drawings stay open, and seeds whose base errors are kept: residuals are some megabytes for each. */
const KEPT = 6;

/** How drawings are encoded. */
export interface EncodingOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((phase: string, done: number, of: number) => void) | undefined;
}

/** Opens things once. For one run at a time. */
export class RunContext {
  private model: { folder: string; pipeline: AnyPipeline; names: string[] | undefined } | undefined;
  private readonly tasks = new Map<string, TaskData>();
  private readonly rows = new Map<ImageDataset, DatasetRows>();
  private readonly base = new Map<string, MeasuredErrors>();

  /** @param threads - Of the model's sessions. */
  constructor(private readonly threads?: number | undefined) {}

  /** The model of a run; another one than before replaces it. */
  async pipelineOf({ settings }: RunSpec): Promise<AnyPipeline> {
    if (this.model?.folder !== settings.model) {
      await this.forget();
      const { threads } = this;
      const pipeline = await loadPipeline(settings.model, { ...(threads !== undefined && { threads }) });
      this.model = { folder: settings.model, pipeline, names: await knownNames(settings.model) };
    }
    return this.model!.pipeline;
  }

  /** The drawings of a run's task. */
  async dataOf(spec: RunSpec): Promise<TaskData> {
    const pipeline = await this.pipelineOf(spec);
    const { task, seed, settings } = spec;
    const { limit } = settings;
    // The drawings of a few-shot task are its seed's own.
    const key = JSON.stringify([taskName(task), task.kind === "few-shot" ? seed : undefined, limit]);
    const known = this.tasks.get(key);
    if (known) return known;
    for (const [oldest, data] of [...this.tasks].slice(0, Math.max(0, this.tasks.size - KEPT + 1))) {
      this.tasks.delete(oldest);
      for (const dataset of [data.train, data.heldOut, data.own]) await this.close(dataset);
    }
    const opened = await openTask(task, {
      ...{ size: pipeline.defaultSize, names: this.model!.names, seed, limit },
      ownLimit: Math.min(OWN_DRAWINGS, limit ?? OWN_DRAWINGS),
      takes: (caption) => isTaken(pipeline, caption),
    });
    this.tasks.set(key, opened);
    return opened;
  }

  /** A dataset as the denoiser sees it. The model's encoders are freed; what was compiled of the denoiser stays. */
  async rowsOf(
    spec: RunSpec,
    dataset: ImageDataset,
    { signal, onProgress }: EncodingOptions = {},
  ): Promise<DatasetRows> {
    const known = this.rows.get(dataset);
    if (known) return known;
    const rows = await openDatasetRows(await this.pipelineOf(spec), dataset, {
      ...(signal && { signal }),
      onProgress: (what, done, of) => onProgress?.(`encoding ${what}`, done, of),
    });
    this.rows.set(dataset, rows);
    return rows;
  }

  /** What the base predicts of its own style with a seed's noise: measured by the first run that asks. */
  async baseErrors({ seed, settings }: RunSpec, measure: () => Promise<MeasuredErrors>): Promise<MeasuredErrors> {
    const key = JSON.stringify([seed, settings.limit]);
    const known = this.base.get(key) ?? (await measure());
    this.base.delete(key);
    this.base.set(key, known);
    for (const oldest of [...this.base.keys()].slice(0, -KEPT)) this.base.delete(oldest);
    return known;
  }

  /** Closes all: after a run that has changed the model's weights, or failed. */
  async forget(): Promise<void> {
    for (const dataset of [...this.rows.keys()]) await this.close(dataset);
    this.tasks.clear();
    this.base.clear();
    await this.model?.pipeline.release();
    this.model = undefined;
  }

  private async close(dataset: ImageDataset): Promise<void> {
    const rows = this.rows.get(dataset);
    this.rows.delete(dataset);
    await rows?.close();
  }
}

function isTaken(pipeline: AnyPipeline, caption: string): boolean {
  try {
    checkCaptions(pipeline, [caption]);
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
}
