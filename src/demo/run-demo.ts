// The whole job on what the package carries: the embedded model learns another icon style, and shows what it learned.
// Node only.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FeRAConfig } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import type { DeviceOption } from "../runtime/index.js";
import { clearCheckpoints, prepareOutputFolder } from "../training/checkpoint.js";
import { captionOf, ICON_STYLES, type IconStyle } from "../training/data/icons.js";
import { encodeDataset } from "../training/encode-dataset.js";
import { noisePredictionError } from "../training/evaluation.js";
import { fineTune } from "../training/fine-tune.js";
import { type ImageDataset, openDataset } from "../training/index.js";
import type { StepReport } from "../training/trainer.js";
import { beforeAfterPicture, type ComparedImage, routingPicture } from "./demo-pictures.js";

/** Folder of the embedded pipeline, in diffusers' layout. */
export const EMBEDDED_MODEL = fileURLToPath(new URL("../../assets/icons", import.meta.url));

/** The icon sets that the embedded model can be taught: all but the one that it was trained on. */
export const DEMO_STYLES = Object.keys(ICON_STYLES).filter((style) => style !== "noto") as IconStyle[];

/** Held-out drawings that the pictures show, where a style has them. */
const SHOWN = 8;
const SAMPLING_STEPS = 25;
const GUIDANCE_SCALE = 5;

/** Settings of {@link runDemo}. */
export interface DemoOptions {
  /** A pipeline's folder; the embedded model by default. */
  model?: string;
  style: IconStyle;
  output: string;
  steps: number;
  batchSize: number;
  learningRate: number;
  seed: number;
  device?: DeviceOption;
  threads?: number;
  resume?: boolean;
  onPhase?: (text: string) => void;
  onStep?: (report: StepReport) => void;
  signal?: AbortSignal;
}

/** What a demo found, as written to `report.json`. */
export interface DemoReport {
  style: IconStyle;
  steps: number;
  batchSize: number;
  learningRate: number;
  seed: number;
  config: unknown;
  trainImages: number;
  adaptedLayers: number;
  trainableParameters: number;
  /** Mean squared error of the predicted noise on drawings that were not trained on, same noise and timesteps. */
  heldOut: { before: number; after: number; images: number; predictions: number };
  loss: { first: number; last: number };
  seconds: number;
  trainingSeconds: number;
  stepsPerSecond: number;
  adapter: string;
  finished: boolean;
}

/** The adapters of the demo: all attention projections, the gated feed-forward and the time projections. */
export const demoConfig = (): FeRAConfig =>
  new FeRAConfig({
    rank: 8,
    alpha: 8,
    numExperts: 3,
    numBands: 3,
    bands: "complete",
    // On 32×32 latents: half a pixel and one. The share of the lowest band then goes from 0.17 in noise to 0.74 in a clean
    // drawing; with a divisor of 8 the highest band keeps more than four fifths of all energy throughout.
    sigma: { rule: "latent", divisor: 64 },
    targetModules: ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj"],
  });

/**
 * Fine-tunes the embedded model to a style and writes the adapter, two pictures and a report.
 *
 * @returns Undefined where the signal ended the training early; a checkpoint is then in the output folder.
 * @throws {FeraError} If the folder cannot be written or the work fails.
 */
export async function runDemo(options: DemoOptions): Promise<DemoReport | undefined> {
  const { style, output, seed, steps, batchSize, learningRate, onPhase, signal } = options;
  if (!DEMO_STYLES.includes(style)) {
    throw new ConfigError(`demo: style must be one of ${DEMO_STYLES.join(", ")}; got ${JSON.stringify(style)}.`);
  }
  const startedAt = performance.now();
  await prepareOutputFolder(output);
  // The demo's folder is its own: a run that is not resumed replaces the one before.
  if (!options.resume) await clearCheckpoints(join(output, "checkpoints"));

  onPhase?.("loading the model");
  const { device, threads } = options;
  const pipeline = await StableDiffusionPipeline.fromPretrained(options.model ?? EMBEDDED_MODEL, { device, threads });
  const size = pipeline.defaultSize;
  const dataset = await openDataset(`icons:${style}`, { size, split: "train" });
  const heldOut = await openDataset(`icons:${style}`, { size, split: "heldOut" });

  onPhase?.(`measuring the base model on ${heldOut.size} held-out drawings`);
  const objective = createObjective(pipeline.schedulerConfig);
  const encoded = await encodeDataset(pipeline, heldOut, () => signal?.throwIfAborted());
  const evaluation = { objective, seed, signal };
  const before = await noisePredictionError(pipeline.unet, encoded, evaluation);

  onPhase?.(`encoding ${dataset.size} ${style} drawings`);
  const trainingStarted = performance.now();
  let first: StepReport | undefined;
  let last: StepReport | undefined;
  const recent: number[] = [];
  const result = await fineTune({
    pipeline,
    dataset,
    config: demoConfig(),
    output,
    steps,
    batchSize,
    learningRate,
    schedule: "cosine",
    warmup: Math.min(20, Math.floor(steps / 10)),
    ema: 0.99,
    checkpointEvery: 200,
    seed,
    resume: options.resume,
    onPhase: ({ kind }) => {
      // Before the first step there is nothing to keep.
      if (kind === "encoding") signal?.throwIfAborted();
    },
    onStep: (report) => {
      first ??= report;
      last = report;
      recent.push(report.loss);
      options.onStep?.(report);
    },
    signal,
  });
  const trainingSeconds = (performance.now() - trainingStarted) / 1000;
  if (!result.finished) return undefined;

  onPhase?.("measuring the adapted model");
  const after = await noisePredictionError(result.model, encoded, evaluation);

  onPhase?.("drawing held-out names before and after");
  const shown = shownDrawings(heldOut);
  const prompts = shown.map((index) => heldOut.caption(index));
  const sampling = { prompt: prompts, steps: SAMPLING_STEPS, guidanceScale: GUIDANCE_SCALE, seed, signal };
  const base = await pipeline.generate(sampling);
  await pipeline.useAdapters(result.model);
  const adapted = await pipeline.generate(sampling);
  const rows: ComparedImage[] = await Promise.all(
    shown.map(async (index, i) => ({
      caption: heldOut.caption(index),
      base: base.images[i]!,
      adapted: adapted.images[i]!,
      truth: { data: await heldOut.image(index), size },
    })),
  );
  await beforeAfterPicture(join(output, "before-after.png"), rows, captionOf(style));
  if (adapted.route) await routingPicture(join(output, "routing.png"), adapted.route);

  const report: DemoReport = {
    style,
    steps,
    batchSize,
    learningRate,
    seed,
    config: result.model.config,
    trainImages: dataset.size,
    adaptedLayers: result.model.layers.length,
    trainableParameters: result.model.parameterCount,
    heldOut: { before: before.error, after: after.error, images: heldOut.size, predictions: after.count },
    loss: { first: first?.loss ?? Number.NaN, last: meanOfLast(recent, 50) },
    seconds: (performance.now() - startedAt) / 1000,
    trainingSeconds,
    stepsPerSecond: last?.stepsPerSecond ?? 0,
    adapter: result.adapter,
    finished: result.finished,
  };
  await writeFile(join(output, "report.json"), `${JSON.stringify(report, null, 2)}\n`);
  await pipeline.release();
  return report;
}

/** A spread of held-out drawings: every n-th by name. */
function shownDrawings(dataset: ImageDataset): number[] {
  const count = Math.min(SHOWN, dataset.size);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) * dataset.size) / count));
}

function meanOfLast(values: readonly number[], count: number): number {
  const last = values.slice(-count);
  return last.reduce((sum, value) => sum + value, 0) / Math.max(1, last.length);
}
