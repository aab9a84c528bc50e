// What a training takes of memory, and how it is made to fit: recomputation, tiles, and drawing without the step beside it.
// Node only.

import type { CompiledTrainStep, TrainStepOptions } from "../../adapters/train-step-options.js";
import { type Denoiser, repeatConditioning } from "../../diffusion/index.js";
import { type AnyPipeline, StableDiffusionXLPipeline } from "../../pipelines/index.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { keepsOneSize } from "../bucketed-train-step.js";
import { NO_ENTRIES } from "../cache/entry-store.js";
import { TextRows } from "../cache/text-rows.js";
import type { ImageDataset } from "../data/dataset.js";
import { encodeImageBatch } from "../encode-images.js";
import { setFittingTiles, tilesNote } from "./fitting-tiles.js";
import { generationPhases } from "./generation-memory.js";
import { MemoryEstimate, type MemoryPhase, type MemoryPlan } from "./memory-plan.js";

/** Bytes of each trained value: itself, its gradient and the optimizer's state; what is sent to the graph, and written. */
const TRAINED_BYTES = 40;
/** Sides that are tried when a smaller resolution might fit are multiples of so many latent pixels. */
const LATENT_UNIT = 8;

/** What is trained, as far as memory depends on it. */
export interface TrainedParts {
  pipeline: AnyPipeline;
  dataset: ImageDataset;
  /** Compiles the step, and has what it trains. */
  trained: {
    readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
    compileTrainStep(options: TrainStepOptions): Promise<CompiledTrainStep>;
  };
  /** What predicts with the adapters, where a validation loss is measured. */
  predictor: (() => Pick<Denoiser, "predict"> & { release(): Promise<void> }) | undefined;
  /** Of `compileTrainStep`, beside batch, size and recomputation. */
  stepOptions: Omit<TrainStepOptions, "batchSize" | "latentHeight" | "latentWidth" | "gradientCheckpointing">;
  batchSize: number;
  gradientCheckpointing: boolean;
  /** Whether the encoders stay loaded beside the step, because their results are not kept. */
  keepsLatents: boolean;
  keepsText: boolean;
  /** Whether captions are encoded in the step. */
  trainsText: boolean;
  /** What is drawn along the way. */
  drawing: { prompts: readonly string[]; size: number; guidanceScale?: number | undefined } | undefined;
}

/** How a training keeps below its limit. */
export interface FittedTraining {
  plan: MemoryPlan;
  gradientCheckpointing: boolean;
  /** Whether the step is unloaded while something else is done. */
  unloadsStep: boolean;
}

/** Sizes of latents. */
interface Size {
  latentHeight: number;
  latentWidth: number;
}

/**
 * Plans a training within a limit, and sets its autoencoder's tiles.
 *
 * @throws {ConfigError} If it does not fit: the message says what would.
 */
export async function fitTraining(parts: TrainedParts, limitBytes: number): Promise<FittedTraining> {
  const estimate = new MemoryEstimate(limitBytes);
  const { pipeline, dataset } = parts;
  const fits = (bytes: number) => estimate.fits(bytes);
  const phases: MemoryPhase[] = [];
  const add = (name: string, bytes: number, note?: string) => phases.push({ name, bytes, ...(note && { note }) });

  let textBytes = 0;
  if (!parts.trainsText) {
    textBytes = await estimate.models(() => encodeEmpty(pipeline));
    const bytes = estimate.withModels(textBytes);
    if (!fits(bytes)) estimate.refuse("encoding captions", bytes, []);
    add("encoding text", bytes, parts.keepsText ? "freed before the step is loaded" : undefined);
  }

  // The step: as it is asked for, else with recomputation, which changes nothing but time.
  const largest = largestImage(dataset);
  const { downscale } = pipeline.vae;
  const size = { latentHeight: largest.height / downscale, latentWidth: largest.width / downscale };
  const trainedBytes = TRAINED_BYTES * [...parts.trained.parameters.values()].reduce((sum, { size }) => sum + size, 0);
  const besideStep = trainedBytes + (parts.keepsText ? 0 : textBytes);
  // Of small models the steps of all sizes stay loaded.
  const loaded = keepsOneSize(pipeline.denoiser) ? 1 : sizesOf(dataset);
  const stepAt = async (batchSize: number, at: Size, gradientCheckpointing: boolean) => {
    const options = { ...parts.stepOptions, batchSize, ...at, gradientCheckpointing };
    return loaded * (await estimate.models(async () => (await parts.trained.compileTrainStep(options)).release()));
  };
  let { gradientCheckpointing } = parts;
  let stepBytes = await stepAt(parts.batchSize, size, gradientCheckpointing);
  if (!fits(estimate.withModels(stepBytes + besideStep)) && !gradientCheckpointing) {
    gradientCheckpointing = true;
    stepBytes = await stepAt(parts.batchSize, size, true);
  }
  const whole = estimate.withModels(stepBytes + besideStep);
  if (!fits(whole)) {
    const bytesAt = async (batch: number, at: Size) =>
      estimate.withModels((await stepAt(batch, at, true)) + besideStep);
    const ways = await smallerSteps(parts.batchSize, size, downscale, async (batch, at) =>
      fits(await bytesAt(batch, at)),
    );
    const at = `${largest.width}×${largest.height} pixels`;
    const what = `a training step of ${parts.batchSize} × ${at}, activations recomputed (gradientCheckpointing),`;
    estimate.refuse(what, whole, ways);
  }

  // Images: beside the step where they are encoded again at each draw.
  const beside = parts.keepsLatents ? 0 : stepBytes + besideStep;
  const pixels = 4 * 3 * largest.width * largest.height;
  const black = new Float32Array(3 * largest.width * largest.height);
  const encode = () => encodeImageBatch(pipeline.vae, [black], largest).finally(() => pipeline.vae.release());
  const tiles = await setFittingTiles(pipeline.vae, "encode", {
    ...{ side: Math.max(largest.width, largest.height), fits },
    bytesOf: () => estimate.of(encode, beside + 8 * pixels),
  });
  if (!fits(tiles.bytes)) estimate.refuse("encoding images, even in the smallest tiles,", tiles.bytes, []);
  add("encoding images", tiles.bytes, tilesNote(tiles));
  const recomputes = gradientCheckpointing && !parts.gradientCheckpointing;
  add("training step", whole, recomputes ? "activations recomputed: the same result, more time" : undefined);

  // What is done between steps.
  let unloadsStep = false;
  const between = (name: string, alone: number, note?: string) => {
    const together = alone + stepBytes + besideStep;
    if (fits(together)) return add(name, together, note);
    unloadsStep = true;
    return add(name, alone + besideStep, [note, "the step is unloaded meanwhile"].filter(Boolean).join("; "));
  };
  if (parts.predictor) {
    const { predictor } = parts;
    const bytes = await estimate.of(async () => {
      const model = predictor();
      await model.predict(await emptyBatch(pipeline, parts.batchSize, size)).finally(() => model.release());
      await pipeline.release();
    });
    if (!fits(bytes + besideStep)) {
      estimate.refuse("the validation loss", bytes + besideStep, ["a smaller batch size", "no validation data"]);
    }
    between("validation loss", bytes);
  }
  if (parts.drawing) {
    const { prompts, size: side, guidanceScale } = parts.drawing;
    const drawn = {
      prompt: prompts[0]!,
      width: side,
      height: side,
      ...(guidanceScale !== undefined && { guidanceScale }),
    };
    for (const { name, bytes, note } of await generationPhases(pipeline, drawn, estimate)) between(name, bytes, note);
  }
  return { plan: { limitBytes, phases }, gradientCheckpointing, unloadsStep };
}

function largestImage(dataset: ImageDataset): { width: number; height: number } {
  let largest = dataset.shape(0);
  for (let i = 1; i < dataset.size; i++) {
    const shape = dataset.shape(i);
    if (shape.width * shape.height > largest.width * largest.height) largest = shape;
  }
  return largest;
}

const sizesOf = (dataset: ImageDataset): number =>
  new Set(Array.from({ length: dataset.size }, (_, i) => Object.values(dataset.shape(i)).join("×"))).size;

/** What of the batch size, of the resolution, or of both would fit, in words. */
async function smallerSteps(
  batchSize: number,
  { latentHeight, latentWidth }: Size,
  downscale: number,
  fits: (batchSize: number, size: Size) => Promise<boolean>,
): Promise<string[]> {
  const ways: string[] = [];
  const size = { latentHeight, latentWidth };
  let fitting: number | undefined;
  for (let batch = Math.floor(batchSize / 2); batch >= 1 && fitting === undefined; batch = Math.floor(batch / 2)) {
    if (await fits(batch, size)) fitting = batch;
  }
  if (fitting !== undefined) ways.push(`a batch size of ${fitting} (with gradientAccumulation for the rest)`);
  const sideAt = async (batch: number): Promise<number | undefined> => {
    const units = Math.floor((Math.max(latentHeight, latentWidth) - 1) / LATENT_UNIT);
    let [low, high] = [0, units];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const side = middle * LATENT_UNIT;
      if (await fits(batch, { latentHeight: side, latentWidth: side })) low = middle;
      else high = middle - 1;
    }
    return low === 0 ? undefined : low * LATENT_UNIT * downscale;
  };
  const side = await sideAt(batchSize);
  if (side !== undefined) ways.push(`a resolution of ${side}`);
  if (ways.length === 0 && batchSize > 1) {
    const both = await sideAt(1);
    if (both !== undefined) ways.push(`a resolution of ${both} with a batch size of 1`);
  }
  return ways;
}

/** What captions are encoded with, loaded and freed. */
async function encodeEmpty(pipeline: AnyPipeline): Promise<TextRows> {
  const rows = await TextRows.open({ pipeline, store: NO_ENTRIES, modelKey: "" });
  await rows.release();
  return rows;
}

async function emptyBatch(pipeline: AnyPipeline, batchSize: number, { latentHeight, latentWidth }: Size) {
  const { empty } = await encodeEmpty(pipeline);
  const isXL = pipeline instanceof StableDiffusionXLPipeline;
  return {
    ...repeatConditioning(isXL ? { ...empty, timeIds: zeros([1, 6]) } : empty, batchSize),
    latents: zeros([batchSize, pipeline.denoiser.latentChannels, latentHeight, latentWidth]),
    timesteps: tensor(new Float32Array(batchSize)),
  };
}
