// A process that draws: it keeps the pipeline of the last model and its adapters, and does one job after the other. Started
// by `Drawings`, with a channel for messages.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { adapterName } from "../training/adapter-name.js";
import "../runtime/node.js";
import "../storage/node.js";
import { FeraError } from "../errors.js";
import { encodePng } from "../images/image-file.js";
import { type AnyPipeline, loadPipeline, withGenerationSettings } from "../pipelines/index.js";
import { describeSystemError, writeFileAtomically } from "../storage/file-access.js";
import { drawCell } from "./draw-cell.js";
import type { DrawCell } from "./draw-cells.js";
import type { DrawJob, DrawOrder, DrawReport } from "./draw-messages.js";
import type { DrawnImage } from "./protocol.js";

let kept: { model: string; pipeline: AnyPipeline } | undefined;
/** Of jobs that have not ended. A job is known as it arrives: the order to cancel it may come before it begins. */
const cancelling = new Map<string, AbortController>();
let turn: Promise<void> = Promise.resolve();

process.on("message", (order: DrawOrder) => {
  if (order.kind === "draw") {
    const controller = new AbortController();
    cancelling.set(order.job.job, controller);
    turn = turn.then(() => run(order.job, controller.signal));
  } else cancelling.get(order.job)?.abort();
});
// The studio has gone.
process.on("disconnect", () => process.exit());

const report = (message: DrawReport): void => {
  process.send?.(message);
};

async function run(job: DrawJob, signal: AbortSignal): Promise<void> {
  try {
    signal.throwIfAborted();
    await draw(job, signal);
    report({ kind: "ended", job: job.job });
  } catch (error) {
    report({ kind: "ended", job: job.job, ...(!signal.aborted && { error: wordsOf(error) }) });
  }
  cancelling.delete(job.job);
}

function wordsOf(error: unknown): string {
  if (error instanceof FeraError) return error.message;
  return describeSystemError(error) ?? `Unexpected error: ${(error as Error).message}`;
}

async function draw(job: DrawJob, signal: AbortSignal): Promise<void> {
  const total = job.cells.reduce((sum, { steps }) => sum + steps, 0);
  const tell = (done: number, activity: string) => report({ kind: "drawing", job: job.job, done, total, activity });
  tell(0, "loading the model");
  const pipeline = await pipelineOf(job.model);
  signal.throwIfAborted();
  await useAdapters(pipeline, job);
  /** What two cells have in common is drawn once: without adapters their strength makes no difference. */
  const drawn = new Map<string, DrawnImage>();
  let done = 0;
  for (const [index, cell] of job.cells.entries()) {
    const activity = job.cells.length === 1 ? "drawing" : `picture ${index + 1} of ${job.cells.length}`;
    const key = keyOf(cell);
    let image = drawn.get(key);
    if (!image) {
      image = await drawPicture(pipeline, job, cell, `${job.job}-${index + 1}.png`, signal, (share) =>
        tell(done + Math.floor(share * cell.steps), activity),
      );
      drawn.set(key, image);
    }
    done += cell.steps;
    tell(done, activity);
    report({ kind: "drawn", job: job.job, image: { ...image, x: cell.x, y: cell.y } });
  }
}

function keyOf({ x: _x, y: _y, adapters, ...options }: DrawCell): string {
  return JSON.stringify([options, options.withoutAdapters ? [] : adapters]);
}

async function pipelineOf(model: string): Promise<AnyPipeline> {
  if (kept?.model === model) return kept.pipeline;
  const before = kept;
  kept = undefined;
  await before?.pipeline.release();
  const pipeline = await loadPipeline(model);
  kept = { model, pipeline };
  return pipeline;
}

/** Names of loaded adapters: a file that has changed since is another. */
async function nameOf(path: string): Promise<string> {
  const { mtimeMs, size } = await stat(path);
  return `${path} ${mtimeMs} ${size}`;
}

/** Loads what the job needs, and forgets the rest. */
async function useAdapters(pipeline: AnyPipeline, { cells }: DrawJob): Promise<void> {
  const ids = new Set(cells.flatMap(({ adapters }) => adapters.map(({ id }) => id)));
  const names = new Map(await Promise.all([...ids].map(async (id) => [await nameOf(id), id] as const)));
  const unused = pipeline.adapterNames.filter((name) => !names.has(name));
  if (unused.length > 0) pipeline.deleteAdapters(unused);
  for (const [name, id] of names) {
    if (!pipeline.adapterNames.includes(name)) await pipeline.loadAdapters(id, { name });
  }
  idOf = names;
}

/** By the names under which they are loaded. */
let idOf: ReadonlyMap<string, string> = new Map();

async function drawPicture(
  pipeline: AnyPipeline,
  { labels, folder, modelName }: DrawJob,
  cell: DrawCell,
  file: string,
  signal: AbortSignal,
  onStep: (share: number) => void,
): Promise<DrawnImage> {
  const begin = performance.now();
  const names = new Map([...idOf].map(([name, id]) => [id, name]));
  const { image, settings, drawn } = await drawCell(pipeline, cell, {
    model: modelName,
    loadedAs: (id) => names.get(id)!,
    nameOf: adapterName,
    labelOf: (loaded) => labels[idOf.get(loaded)!] ?? loaded,
    ...{ onStep, signal },
  });
  await writeFileAtomically(join(folder, file), [withGenerationSettings(await encodePng(image), settings)]);
  return { id: file, ...drawn, seconds: (performance.now() - begin) / 1000 };
}
