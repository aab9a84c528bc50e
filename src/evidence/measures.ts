// What is measured of an adapted model: errors of predicted noise by name, timestep and band, and its drawings.

import { drawPrompts, trueFeatures } from "../demo/index.js";
import { type DrawingFeatures, drawingFeatures, nearestOf } from "../demo/nearest.js";
import type { Denoiser, Objective } from "../diffusion/index.js";
import type { AnyPipeline } from "../pipelines/index.js";
import type { EncodedRows } from "../training/encoded-dataset.js";
import { ErrorSums } from "../training/error-sums.js";
import { noisePredictions } from "../training/evaluation.js";
import type { ImageDataset } from "../training/index.js";
import type { ErrorParts, NameResult } from "./records.js";
import { shapeDistance, shapeFeatures } from "./shape-features.js";

/** Prompts that are drawn several times, and how often more, to see how drawings differ. */
const VARIED_PROMPTS = 8;
const MORE_DRAWINGS = 2;

/** How errors are measured: noise and timesteps are the same for all that have one seed. */
export interface ErrorOptions {
  objective: Objective;
  seed: number;
  timestepsPerImage: number;
  signal?: AbortSignal | undefined;
}

/** Errors of single rows, and of all. */
export interface MeasuredErrors extends ErrorParts {
  /** One for each row. */
  rows: number[];
  /** ε̂ − ε of every prediction, in their order. */
  residuals: Float32Array[];
}

/** Errors of predicted noise. */
export async function measureErrors(
  model: Pick<Denoiser, "predict">,
  data: EncodedRows,
  { objective, seed, timestepsPerImage, signal }: ErrorOptions,
): Promise<MeasuredErrors> {
  const sums = new ErrorSums(objective.trainTimesteps);
  const rows = new Array<number>(data.size).fill(0);
  const residuals: Float32Array[] = [];
  const options = { objective, seed, timestepsPerImage, ...(signal && { signal }) };
  for await (const prediction of noisePredictions(model, data, options)) {
    sums.add(prediction);
    rows[Math.floor(residuals.length / timestepsPerImage)]! += prediction.error / timestepsPerImage;
    residuals.push(prediction.residual);
  }
  const { byTimestep, byBand } = sums.means();
  const error = rows.reduce((sum, each) => sum + each, 0) / rows.length;
  return { error, byTimestep, byBand, rows, residuals };
}

/** The mean square of what two models predict differently, from their errors on the same noise. */
export function driftBetween(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let sum = 0;
  let count = 0;
  for (const [i, first] of a.entries()) {
    const second = b[i]!;
    for (let j = 0; j < first.length; j++) sum += (first[j]! - second[j]!) ** 2;
    count += first.length;
  }
  return sum / count;
}

/** Drawings of held-out names. */
export interface MeasuredDrawings {
  /** One for each name. */
  names: NonNullable<NameResult["drawing"]>[];
  nearestShare: number;
  diversity: number;
}

/** Draws every held-out name once, and some several times, by the pipeline as it is. */
export async function measureDrawings(
  pipeline: AnyPipeline,
  heldOut: ImageDataset,
  { seed, steps, signal }: { seed: number; steps: number; signal?: AbortSignal | undefined },
): Promise<MeasuredDrawings> {
  const prompts = Array.from({ length: heldOut.size }, (_, i) => heldOut.caption(i));
  const draw = async (some: readonly string[], own: number): Promise<DrawingFeatures[]> =>
    (await drawPrompts(pipeline, some, { seed: own, steps, signal })).images.map(drawingFeatures);
  const truths = await trueFeatures(heldOut);
  const drawn = await draw(prompts, seed);
  const names = drawn.map((drawing, i) => ({
    ...distances(drawing, truths[i]!),
    isNearest: nearestOf(drawing, truths) === i,
  }));
  const varied = prompts.flatMap((_, i) => (i % Math.ceil(prompts.length / VARIED_PROMPTS) === 0 ? [i] : []));
  const variants = [varied.map((i) => drawn[i]!)];
  for (let k = 1; k <= MORE_DRAWINGS; k++) {
    variants.push(
      await draw(
        varied.map((i) => prompts[i]!),
        seed + 1000 * k,
      ),
    );
  }
  return {
    names,
    nearestShare: names.filter(({ isNearest }) => isNearest).length / names.length,
    diversity: meanDistance(varied.map((_, i) => variants.map((drawings) => drawings[i]!))),
  };
}

/** Lab: squared differences of the three colour coordinates; edges: those of lightness's steps; shape: see shape-features.ts. */
export function distances(
  drawing: DrawingFeatures,
  truth: DrawingFeatures,
): { lab: number; edges: number; shape: number } {
  const plane = drawing.length / 5;
  const between = (from: number, to: number): number => {
    let sum = 0;
    for (let i = from * plane; i < to * plane; i++) sum += (drawing[i]! - truth[i]!) ** 2;
    return sum / plane;
  };
  return {
    lab: between(0, 3),
    edges: between(3, 5),
    shape: shapeDistance(shapeFeatures(drawing), shapeFeatures(truth)),
  };
}

/** The mean Lab distance between two of the drawings of one prompt, over pairs and prompts. */
function meanDistance(prompts: readonly (readonly DrawingFeatures[])[]): number {
  const all = prompts.flatMap((drawings) =>
    drawings.flatMap((first, i) => drawings.slice(i + 1).map((second) => distances(first, second).lab)),
  );
  return all.reduce((sum, distance) => sum + distance, 0) / all.length;
}
