// Trying adapters: pictures by prompt, with and without, over the values of two options.

import { withGenerationSettings } from "../../../../src/pipelines/generation-settings/png-settings.js";
import { SAMPLER_NAMES } from "../../../../src/pipelines/generation-settings/sampler-names.js";
import { drawCell } from "../../../../src/studio/draw-cell.js";
import { checkedRequest, type DrawCell, drawCells } from "../../../../src/studio/draw-cells.js";
import type { DrawnImage, DrawRequest, StudioEvent } from "../../../../src/studio/protocol.js";
import { findFile, findFolder, RUNS_FOLDER } from "../files.js";
import { RUN_FILES } from "../runs.js";
import { EMBEDDED, LATENT_SCALE, loadModel, place } from "./place.js";

/** Two halvings of the latents. */
const MULTIPLE = 4 * LATENT_SCALE;
const LARGEST = 512;
/** Pictures that are kept for the page; the oldest are given up. */
const KEPT = 512;

type Pipeline = Awaited<ReturnType<typeof loadModel>>;

/** Draws what is asked for, one request after the other. */
export class Drawings {
  private readonly pictures = new Map<string, Blob>();
  private readonly jobs = new Map<string, AbortController>();
  private queue: Promise<unknown> = Promise.resolve();
  private pipeline: Promise<Pipeline> | undefined;
  private next = 1;

  constructor(
    private readonly root: FileSystemDirectoryHandle,
    private readonly tell: (event: StudioEvent) => void,
  ) {}

  /** @throws {Error} If something of the request cannot be drawn. */
  start(request: DrawRequest): string {
    const cells = cellsOf(request);
    const job = `drawing-${this.next++}`;
    const aborting = new AbortController();
    this.jobs.set(job, aborting);
    this.queue = this.queue.then(async () => {
      try {
        await this.draw(job, request, cells, aborting.signal);
        this.tell({ kind: "drawingEnded", job });
      } catch (error) {
        const isAborted = aborting.signal.aborted;
        this.tell({ kind: "drawingEnded", job, ...(!isAborted && { error: (error as Error).message }) });
      }
      this.jobs.delete(job);
    });
    return job;
  }

  cancel(job: string): void {
    this.jobs.get(job)?.abort(new DOMException("The drawing was stopped.", "AbortError"));
  }

  /** @throws {Error} If it has been given up since. */
  picture(id: string): Blob {
    const blob = this.pictures.get(id);
    if (!blob) throw new Error("This picture is not kept any more. Draw it again.");
    return blob;
  }

  private async draw(
    job: string,
    request: DrawRequest,
    cells: readonly DrawCell[],
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    const total = cells.length;
    let done = 0;
    const progress = (activity?: string) =>
      this.tell({ kind: "drawing", job, done, total, ...(activity !== undefined && { activity }) });
    progress("loading the model");
    this.pipeline ??= loadModel(place().device);
    this.pipeline.catch(() => {
      this.pipeline = undefined;
    });
    const pipeline = await this.pipeline;
    await this.useAdapters(pipeline, request);
    for (const cell of cells) {
      signal.throwIfAborted();
      progress();
      const image = await this.drawOne(pipeline, cell, signal);
      done++;
      this.tell({ kind: "drawn", job, image });
    }
    progress();
  }

  private async drawOne(pipeline: Pipeline, cell: DrawCell, signal: AbortSignal): Promise<DrawnImage> {
    const startedAt = performance.now();
    const itself = (id: string) => id;
    const { image, settings, drawn } = await drawCell(pipeline, cell, {
      ...{ model: EMBEDDED, loadedAs: itself, nameOf: itself, labelOf: itself, signal },
      onStep: () => new Promise<void>((resolve) => setTimeout(resolve)),
    });
    const png = new Uint8Array(await (await image.toBlob()).arrayBuffer());
    const id = `${Date.now().toString(36)}-${this.next++}`;
    this.keep(id, new Blob([withGenerationSettings(png, settings) as Uint8Array<ArrayBuffer>], { type: "image/png" }));
    return { id, ...drawn, seconds: (performance.now() - startedAt) / 1000 };
  }

  /** Loads those that are asked for, as their files are now. @throws {Error} That names the one that is not there. */
  private async useAdapters(pipeline: Pipeline, { adapters }: DrawRequest): Promise<void> {
    pipeline.unloadAdapters();
    for (const { id } of adapters) {
      const folder = await findFolder(this.root, RUNS_FOLDER, id);
      const file = folder && (await findFile(folder, RUN_FILES.adapter));
      if (!file) throw new Error(`The run "${id}" has no adapter any more.`);
      await pipeline.loadAdapters(new Uint8Array(await file.arrayBuffer()), { name: id });
    }
  }

  private keep(id: string, blob: Blob): void {
    this.pictures.set(id, blob);
    const [oldest] = this.pictures.keys();
    if (this.pictures.size > KEPT) this.pictures.delete(oldest!);
  }
}

/** All pictures of a request. @throws {Error} That names the option, the rule and what came. */
function cellsOf(request: DrawRequest): DrawCell[] {
  const cells = drawCells(checkedRequest(request, SAMPLER_NAMES), Math.floor(Math.random() * 2 ** 32), SAMPLER_NAMES);
  const names = request.adapters.map(({ id }) => id);
  if (new Set(names).size < names.length) {
    throw new Error("adapters: one is there twice; leave it once, with its scale.");
  }
  for (const [name, side] of Object.entries({ width: request.width, height: request.height })) {
    if (side === undefined || (side % MULTIPLE === 0 && side <= LARGEST)) continue;
    throw new Error(`${name} must be a multiple of ${MULTIPLE} up to ${LARGEST} in a tab; got ${side}.`);
  }
  return cells;
}
