// Trying adapters: pictures by prompt, with and without, over the values of two options.

import { describeGeneration } from "../../../../src/pipelines/generation-settings/describe-generation.js";
import { withGenerationSettings } from "../../../../src/pipelines/generation-settings/png-settings.js";
import { SAMPLER_NAMES, type SamplerName } from "../../../../src/pipelines/generation-settings/sampler-names.js";
import { schedulerFor } from "../../../../src/pipelines/samplers.js";
import type { DrawnImage, DrawRequest, GridAxis, RoutingTrace, StudioEvent } from "../../../../src/studio/protocol.js";
import { findFile, findFolder, RUNS_FOLDER } from "../files.js";
import { RUN_FILES } from "../runs.js";
import { EMBEDDED, LATENT_SCALE, loadModel, place } from "./place.js";

const MOST_PICTURES = 100;
const MOST_STEPS = 200;
const MOST_PIXELS = 512;
/** Pictures that are kept for the page; the oldest are given up. */
const KEPT = 200;

type Pipeline = Awaited<ReturnType<typeof loadModel>>;

/** One picture: what is asked for, at its place. */
interface Cell {
  x: number;
  y: number;
  request: DrawRequest & { seed: number };
}

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

  private async draw(job: string, request: DrawRequest, cells: readonly Cell[], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const ways = request.compare && request.adapters.length > 0 ? [false, true] : [false];
    const total = cells.length * ways.length;
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
      for (const withoutAdapters of ways) {
        signal.throwIfAborted();
        progress();
        const image = await this.drawOne(pipeline, cell, withoutAdapters, signal);
        done++;
        this.tell({ kind: "drawn", job, image });
      }
    }
    progress();
  }

  private async drawOne(
    pipeline: Pipeline,
    { x, y, request }: Cell,
    withoutAdapters: boolean,
    signal: AbortSignal,
  ): Promise<DrawnImage> {
    const { prompt, negativePrompt, steps, guidanceScale, seed, width, height, sampler, adapters } = request;
    if (adapters.length > 0 && !withoutAdapters) {
      pipeline.setAdapters(
        adapters.map(({ id }) => id),
        adapters.map(({ scale }) => scale),
      );
    }
    const startedAt = performance.now();
    const options = {
      ...{ prompt, steps, guidanceScale, seed, signal },
      ...(negativePrompt && { negativePrompt }),
      ...(width !== undefined && { width }),
      ...(height !== undefined && { height }),
      ...(sampler && { scheduler: schedulerFor(pipeline, sampler as SamplerName) }),
      adapters: adapters.length > 0 && !withoutAdapters,
      onStep: () => new Promise<void>((resolve) => setTimeout(resolve)),
    };
    const { images, routes } = await pipeline.generate(options);
    const image = images[0]!;
    const used = withoutAdapters ? [] : adapters.map(({ id: name, scale }) => ({ name, scale }));
    const settings = {
      ...describeGeneration(pipeline, options, { image, seed, position: 0, count: 1 }),
      model: EMBEDDED,
      ...(used.length > 0 && { adapters: used }),
    };
    const png = new Uint8Array(await (await image.toBlob()).arrayBuffer());
    const id = `${Date.now().toString(36)}-${this.next++}`;
    this.keep(id, new Blob([withGenerationSettings(png, settings) as Uint8Array<ArrayBuffer>], { type: "image/png" }));
    return {
      ...{ id, x, y, withoutAdapters, width: image.width, height: image.height, seed },
      seconds: (performance.now() - startedAt) / 1000,
      routes: [...routes].map(([adapter, route]) => ({ adapter, route: route as RoutingTrace })),
    };
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

/** All pictures of a request, row by row. @throws {Error} That names the option, the rule and what came. */
function cellsOf(request: DrawRequest): Cell[] {
  const { grid = {}, adapters } = request;
  const names = adapters.map(({ id }) => id);
  if (new Set(names).size < names.length)
    throw new Error("adapters: one is there twice; leave it once, with its scale.");
  const xs = grid.x?.values ?? [undefined];
  const ys = grid.y?.values ?? [undefined];
  const count = xs.length * ys.length;
  if (count === 0 || count > MOST_PICTURES)
    throw new Error(`grid: there must be 1 to ${MOST_PICTURES} pictures; got ${count}.`);
  const seed = request.seed ?? Math.floor(Math.random() * 2 ** 32);
  return ys.flatMap((yValue, y) =>
    xs.map((xValue, x) => {
      const cell = withValue(withValue({ ...request, seed }, grid.x, xValue), grid.y, yValue);
      check(cell);
      return { x, y, request: cell };
    }),
  );
}

type SeededRequest = DrawRequest & { seed: number };

function withValue(
  request: SeededRequest,
  axis: GridAxis | undefined,
  value: string | number | undefined,
): SeededRequest {
  if (!axis || value === undefined) return request;
  if (axis.option === "adapterScale") {
    return { ...request, adapters: request.adapters.map(({ id }) => ({ id, scale: Number(value) })) };
  }
  const isText = axis.option === "prompt" || axis.option === "sampler";
  return { ...request, [axis.option]: isText ? String(value) : Number(value) };
}

function check({ prompt, seed, steps, guidanceScale, sampler, width, height, adapters }: SeededRequest): void {
  const must = (isMet: boolean, option: string, rule: string, came: unknown) => {
    if (!isMet) throw new Error(`${option} must be ${rule}; got ${JSON.stringify(came)}.`);
  };
  must(typeof prompt === "string" && prompt.length <= 2000, "prompt", "a text of at most 2,000 characters", prompt);
  must(Number.isInteger(seed) && seed >= 0, "seed", "an integer of 0 or more", seed);
  must(
    Number.isInteger(steps) && steps >= 1 && steps <= MOST_STEPS,
    "steps",
    `an integer from 1 to ${MOST_STEPS}`,
    steps,
  );
  must(Number.isFinite(guidanceScale) && guidanceScale >= 0, "guidanceScale", "a number of 0 or more", guidanceScale);
  must(
    !sampler || (SAMPLER_NAMES as readonly string[]).includes(sampler),
    "sampler",
    `one of ${SAMPLER_NAMES.join(", ")}`,
    sampler,
  );
  // Two halvings of the latents.
  const multiple = 4 * LATENT_SCALE;
  for (const [name, side] of Object.entries({ width, height })) {
    const isFit = side === undefined || (side % multiple === 0 && side > 0 && side <= MOST_PIXELS);
    must(isFit, name, `a multiple of ${multiple} up to ${MOST_PIXELS}`, side);
  }
  for (const { id, scale } of adapters) must(Number.isFinite(scale), `the scale of ${id}`, "a finite number", scale);
}
