// The whole job on what the package carries: the embedded model learns another icon style, and shows what it learned.
// Node only.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FeRAConfig } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import { ConfigError, FormatError } from "../errors.js";
import type { ImageLike } from "../images/pixels.js";
import { type GenerateResult, StableDiffusionPipeline } from "../pipelines/index.js";
import type { DeviceOption } from "../runtime/index.js";
import { jsonIn } from "../storage/json.js";
import { tensor } from "../tensor/tensor.js";
import { clearCheckpoints, prepareOutputFolder } from "../training/checkpoint.js";
import { captionOf, ICON_STYLES, type IconStyle } from "../training/data/icons.js";
import { encodeDataset } from "../training/encode-dataset.js";
import { noisePredictionError } from "../training/evaluation.js";
import { fineTune } from "../training/fine-tune.js";
import { type ImageDataset, openDataset, subsetOf } from "../training/index.js";
import type { StepReport } from "../training/trainer.js";
import { beforeAfterPicture, type ComparedImage, progressPicture, routingPicture } from "./demo-pictures.js";
import { type AdaptationScore, adaptationScore, drawingFeatures, ownNearestShare } from "./nearest.js";

/** Folder of the embedded pipeline, in diffusers' layout. */
export const EMBEDDED_MODEL = fileURLToPath(new URL("../../assets/icons", import.meta.url));

/** The icon set that the embedded model was trained on. */
const BASE_STYLE: IconStyle = "noto";

/** The icon sets that the embedded model can be taught: all but the one that it was trained on. */
export const DEMO_STYLES = Object.keys(ICON_STYLES).filter((style) => style !== BASE_STYLE) as IconStyle[];

/** Share of the names that the adapter never sees. The base knows them all. */
const HELD_OUT_SHARE = 0.12;
/** Most held-out names that are measured and drawn: spread evenly over the alphabet, as those below. */
const MOST_MEASURED = 100;
/** Held-out names that the pictures show: spread evenly over the alphabet. */
const SHOWN = 8;
/** Of those, the ones that are drawn along the training, and how often. */
const FOLLOWED = 4;
const TIMES_FOLLOWED = 6;
const TIMESTEP_SHIFT = 3;
const SAMPLING = { steps: 12, guidanceScale: 3 };
/** Drawings at once. */
const DRAWN_AT_ONCE = 16;

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
  /**
   * Of drawings of the held-out names, all from one seed, as shares of 1: `baseNearest` of the base's, in its own style, are
   * nearest to their own among the true drawings of all names that it knows.
   */
  score: AdaptationScore & { baseNearest: number };
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
    // As much as a LoRA of rank and alpha 24 adds, whose scale is 1, would be 24; twice that learned more in the same steps.
    alpha: 48,
    // The consistency loss costs a third of the time and made held-out drawings worse.
    feclWeight: 0,
    numExperts: 3,
    numBands: 3,
    bands: "complete",
    // On 16×16 latents: half a pixel and one. The share of the lowest band then goes from 0.16 in noise to 0.27 in a clean
    // drawing, that of the highest from 0.37 to 0.30; with a divisor of 16 the highest keeps nine tenths throughout.
    sigma: { rule: "latent", divisor: 32 },
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
  const names = await knownNames(options.model ?? EMBEDDED_MODEL);
  const data = { size, names, validationSplit: HELD_OUT_SHARE };
  const dataset = await openDataset(`icons:${style}`, { ...data, split: "train" });
  const allHeldOut = await openDataset(`icons:${style}`, { ...data, split: "heldOut" });
  const heldOut = subsetOf(allHeldOut, spread(allHeldOut.size, MOST_MEASURED));
  const prompts = Array.from({ length: heldOut.size }, (_, i) => heldOut.caption(i));
  const shown = spread(heldOut.size, SHOWN);
  const followed = shown.filter((_, i) => i % (SHOWN / FOLLOWED) === 0).map((index) => prompts[index]!);

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
    // As the base was trained: more of the noise levels where shapes and colours are decided.
    timestepSampling: "stratified",
    timestepShift: TIMESTEP_SHIFT,
    checkpointEvery: 200,
    seed,
    validationPrompts: followed,
    validateEvery: Math.max(1, Math.ceil(steps / TIMES_FOLLOWED)),
    validationSteps: SAMPLING.steps,
    validationGuidanceScale: SAMPLING.guidanceScale,
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

  const drawing = { prompts, seed, signal };
  onPhase?.(`drawing the ${prompts.length} held-out names as the base does, to see which can be told`);
  pipeline.disableAdapters();
  const base = await draw(pipeline, drawing);
  pipeline.enableAdapters();
  onPhase?.("drawing them with the adapter");
  await pipeline.useAdapters(result.model);
  const adapted = await draw(pipeline, drawing);
  const rows: ComparedImage[] = await Promise.all(
    shown.map(async (index) => ({
      caption: prompts[index]!,
      base: base.images[index]!,
      adapted: adapted.images[index]!,
      truth: { data: await heldOut.image(index), size },
    })),
  );
  await beforeAfterPicture(join(output, "before-after.png"), rows, captionOf(style));
  await progressPicture(join(output, "progress.png"), output, followed, captionOf(style));
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
    score: await score({ base: base.images, adapted: adapted.images, heldOut, names }),
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

/** Names that the model says it knows, in the file beside its parts; undefined where it says nothing. */
export async function knownNames(folder: string): Promise<string[] | undefined> {
  const file = join(folder, "names.json");
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const names: unknown = jsonIn(text);
  if (Array.isArray(names) && names.every((name) => typeof name === "string")) return names;
  throw new FormatError(file, "must be a list of names.");
}

/** One drawing for each prompt, and how the adapter was mixed along the first ones. */
async function draw(
  pipeline: StableDiffusionPipeline,
  { prompts, seed, signal }: { prompts: readonly string[]; seed: number; signal: AbortSignal | undefined },
): Promise<GenerateResult> {
  const results: GenerateResult[] = [];
  for (let first = 0; first < prompts.length; first += DRAWN_AT_ONCE) {
    const prompt = prompts.slice(first, first + DRAWN_AT_ONCE);
    results.push(await pipeline.generate({ prompt, seed, ...SAMPLING, ...(signal && { signal }) }));
  }
  return { ...results[0]!, images: results.flatMap(({ images }) => images) };
}

async function score(drawings: {
  base: readonly ImageLike[];
  adapted: readonly ImageLike[];
  heldOut: ImageDataset;
  names: readonly string[] | undefined;
}): Promise<DemoReport["score"]> {
  const { heldOut } = drawings;
  const size = heldOut.imageSize;
  const truths = await Promise.all(
    drawings.base.map(async (_, i) => drawingFeatures(tensor(await heldOut.image(i), [3, size, size]))),
  );
  const base = drawings.base.map(drawingFeatures);
  const adapted = drawings.adapted.map(drawingFeatures);
  const { names } = drawings;
  const own = await openDataset(`icons:${BASE_STYLE}`, { size, names, split: "all" });
  const ownNames = Array.from({ length: own.size }, (_, i) => own.name(i));
  const ownTruths = await Promise.all(
    ownNames.map(async (_, i) => drawingFeatures(tensor(await own.image(i), [3, size, size]))),
  );
  const known = base.map((_, i) => ownNames.indexOf(heldOut.name(i)));
  const asked = known.flatMap((index, i) => (index === -1 ? [] : [i]));
  const baseNearest = ownNearestShare(
    asked.map((i) => base[i]!),
    ownTruths,
    asked.map((i) => known[i]!),
  );
  return { baseNearest, ...adaptationScore({ base, adapted, truths }) };
}

/** Indices below `size`, all of them or `most`, at equal distances. */
function spread(size: number, most: number): number[] {
  const count = Math.min(most, size);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) * size) / count));
}

function meanOfLast(values: readonly number[], count: number): number {
  const last = values.slice(-count);
  return last.reduce((sum, value) => sum + value, 0) / Math.max(1, last.length);
}
