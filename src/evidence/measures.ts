// What is measured of an adapted model: errors of predicted noise by name, timestep and band, and its drawings.

import { type DrawingFeatures, drawingFeatures, nearestOf } from "../demo/nearest.js";
import type { Denoiser, Objective } from "../diffusion/index.js";
import type { ImageLike } from "../images/pixels.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { tensor } from "../tensor/tensor.js";
import type { EncodedRows } from "../training/encoded-dataset.js";
import { addedTo, type BandErrors, ERROR_BANDS, errorByBand } from "../training/error-bands.js";
import { noisePredictions } from "../training/evaluation.js";
import type { ImageDataset } from "../training/index.js";
import type { ErrorParts, NameResult } from "./records.js";
import { shapeDistance, shapeFeatures } from "./shape-features.js";

/** Equal parts of the timesteps that are told apart. */
const PARTS = 10;
/** Strength of the prompt in drawings, as in the demo. */
const GUIDANCE = 3;
const DRAWN_AT_ONCE = 16;
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
  const total = objective.trainTimesteps;
  const parts = Array.from({ length: PARTS }, () => ({ sum: 0, count: 0 }));
  const bands: BandErrors = { low: 0, middle: 0, high: 0 };
  const rows = new Array<number>(data.size).fill(0);
  const residuals: Float32Array[] = [];
  const options = { objective, seed, timestepsPerImage, ...(signal && { signal }) };
  for await (const { error, timestep, residual, height, width } of noisePredictions(model, data, options)) {
    rows[Math.floor(residuals.length / timestepsPerImage)]! += error / timestepsPerImage;
    const part = parts[Math.min(PARTS - 1, Math.floor((timestep * PARTS) / total))]!;
    part.sum += error;
    part.count++;
    addedTo(bands, errorByBand(residual, height, width));
    residuals.push(residual);
  }
  const edge = (part: number) => Math.ceil((part * total) / PARTS);
  return {
    error: rows.reduce((sum, error) => sum + error, 0) / rows.length,
    byTimestep: parts.flatMap(({ sum, count }, i) =>
      count === 0 ? [] : [{ from: edge(i), to: edge(i + 1), error: sum / count }],
    ),
    byBand: Object.fromEntries(ERROR_BANDS.map((band) => [band, bands[band] / residuals.length])),
    ...{ rows, residuals },
  };
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
  const draw = async (prompt: readonly string[], own: number): Promise<DrawingFeatures[]> => {
    const images: ImageLike[] = [];
    for (let first = 0; first < prompt.length; first += DRAWN_AT_ONCE) {
      const some = prompt.slice(first, first + DRAWN_AT_ONCE);
      const options = { prompt: some, seed: own, steps, guidanceScale: GUIDANCE, ...(signal && { signal }) };
      images.push(...(await pipeline.generate(options)).images);
    }
    return images.map(drawingFeatures);
  };
  const size = heldOut.imageSize;
  const truths = await Promise.all(
    prompts.map(async (_, i) => drawingFeatures(tensor(await heldOut.image(i), [3, size, size]))),
  );
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
