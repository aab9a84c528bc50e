// Fine-tunes a pipeline with FeRA from a dataset to an adapter file. Node only, for its files.

import { join } from "node:path";
import { type FeRAConfig, FeRAModel } from "../adapters/index.js";
import { ConfigError } from "../errors.js";
import { renderGrid } from "../images/grid.js";
import { writePng } from "../images/image-file.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { DDPMScheduler, noiseConfigOf } from "../schedulers/index.js";
import { Generator } from "../tensor/random.js";
import { ParameterAverage } from "./average.js";
import { prepareOutputFolder } from "./checkpoint.js";
import type { ImageDataset } from "./data/dataset.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import { encodeDataset } from "./encode-dataset.js";
import type { LearningRateScheduleName } from "./learning-rate.js";
import { AdamW } from "./optimizers/adamw.js";
import { type StepReport, Trainer, type TrainingResult } from "./trainer.js";

/** Settings of {@link fineTune}. */
export interface FineTuneOptions {
  pipeline: AnyPipeline;
  dataset: ImageDataset;
  config: FeRAConfig;
  /** Folder for the adapter, checkpoints, metrics and validation images. */
  output: string;
  /** File name of the adapter inside `output`; its ending chooses the format. Default `adapter.safetensors`. */
  adapterName?: string;
  steps: number;
  batchSize: number;
  learningRate: number;
  schedule?: LearningRateScheduleName;
  warmupSteps?: number;
  weightDecay?: number;
  captionDropout?: number;
  gradientAccumulation?: number;
  maxGradientNorm?: number;
  averageDecay?: number;
  /** As in `TrainStepOptions`. */
  gradientCheckpointing?: boolean;
  /** As in `TrainStepOptions`, where steps are of one batch each; accumulated gradients add up in main memory. */
  stateOnDevice?: boolean;
  checkpointEvery?: number;
  /** Images of these prompts are drawn every `validateEvery` steps. */
  validationPrompts?: readonly string[];
  validateEvery?: number;
  seed: number;
  /** What the data is called, so that a resumed run is the same run. */
  dataName: string;
  /** Goes on from the newest checkpoint in `output`. */
  resume?: boolean;
  /** Awaited for "starting". */
  onPhase?: (phase: FineTunePhase) => void | Promise<void>;
  onStep?: (report: StepReport) => void;
  signal?: AbortSignal;
}

/** What a fine-tuning is doing before it steps. */
export type FineTunePhase =
  | { kind: "encoding"; done: number; of: number }
  | { kind: "compiling" }
  | { kind: "resumed"; step: number }
  /** All is ready; nothing has been written yet. */
  | { kind: "starting" }
  | { kind: "validation"; path: string };

/** What a fine-tuning made. */
export interface FineTuneResult extends TrainingResult {
  fera: FeRAModel;
  adapter: string;
}

/**
 * The scheduler that adds noise in training: the schedule of the pipeline's own, whatever its class, under DDPM.
 *
 * @throws {ConfigError} If its configuration asks for what training cannot honour.
 */
export function trainingScheduler(pipeline: Pick<AnyPipeline, "schedulerConfig">): DDPMScheduler {
  const scheduler = new DDPMScheduler(noiseConfigOf("training", pipeline.schedulerConfig));
  if (scheduler.predictionType === "sample") {
    throw new ConfigError(
      "training: prediction_type must be epsilon or v_prediction; the model's scheduler says sample.",
    );
  }
  return scheduler;
}

/**
 * Trains FeRA adapters on a dataset and writes them.
 *
 * On abort the run ends after its step with a checkpoint and the adapter so far; `finished` is then false.
 *
 * @throws {TrainingError} If the output folder cannot be written (before anything else), or a loss is not finite.
 * @throws {ConfigError} If an option is invalid, or a caption is longer than the model allows.
 */
export async function fineTune(options: FineTuneOptions): Promise<FineTuneResult> {
  const { pipeline, dataset, config, output, seed, onPhase, signal } = options;
  await prepareOutputFolder(output);
  const scheduler = trainingScheduler(pipeline);
  const fera = new FeRAModel(pipeline.unet, config, { seed });
  const encoded = await encodeDataset(pipeline, dataset, (done) =>
    onPhase?.({ kind: "encoding", done, of: dataset.size }),
  );
  onPhase?.({ kind: "compiling" });
  const [, , height, width] = encoded.latents.shape as [number, number, number, number];
  const tokens = pipeline.tokenizer.maxLength;
  const { averageDecay = 0, gradientAccumulation = 1, batchSize } = options;
  const optimizer = new AdamW({ lr: options.learningRate, weightDecay: options.weightDecay ?? 0.01 });
  const average = averageDecay === 0 ? undefined : new ParameterAverage(fera.parameters, averageDecay);
  const trainable = await fera.compileTrainStep({
    batchSize,
    height,
    width,
    tokens,
    optimizer,
    average,
    gradientCheckpointing: options.gradientCheckpointing,
    stateOnDevice: gradientAccumulation === 1 ? options.stateOnDevice : false,
  });
  const trainer = new Trainer({
    trainable,
    batches: new DiffusionBatches(encoded, {
      batchSize,
      captionDropout: options.captionDropout ?? 0.1,
      scheduler,
      generator: new Generator(seed),
    }),
    optimizer,
    average,
    steps: options.steps,
    output,
    schedule: options.schedule ?? "constant",
    warmupSteps: options.warmupSteps ?? 0,
    gradientAccumulation,
    maxGradientNorm: options.maxGradientNorm ?? 1,
    checkpointEvery: options.checkpointEvery ?? 0,
    fingerprint: fingerprintOf(options),
    onStep: async (report) => {
      options.onStep?.(report);
      const { validationPrompts = [], validateEvery = 0 } = options;
      if (validationPrompts.length > 0 && validateEvery > 0 && report.step % validateEvery === 0) {
        const path = await validate(pipeline, fera, options, report.step);
        onPhase?.({ kind: "validation", path });
      }
    },
    signal,
  });
  if (options.resume) {
    const step = await trainer.resume();
    onPhase?.({ kind: "resumed", step });
  }
  await onPhase?.({ kind: "starting" });
  const result = await trainer.run();
  await trainable.release();
  if (result.parameters !== fera.parameters) {
    for (const [name, { data }] of result.parameters) fera.parameters.get(name)!.data.set(data);
  }
  const adapter = join(output, options.adapterName ?? "adapter.safetensors");
  await fera.saveAdapters(adapter);
  return { ...result, fera, adapter };
}

/** Draws the validation prompts with the adapters as they are. */
async function validate(
  pipeline: AnyPipeline,
  fera: FeRAModel,
  options: FineTuneOptions,
  step: number,
): Promise<string> {
  const { validationPrompts = [], output, seed } = options;
  await pipeline.useAdapters(fera);
  const { images } = await pipeline.generate({ prompt: validationPrompts, seed, steps: 20 });
  const folder = join(output, "validation");
  await prepareOutputFolder(folder);
  const path = join(folder, `step-${String(step).padStart(6, "0")}.png`);
  await writePng(path, await renderGrid({ rows: [images], columnTitles: validationPrompts }));
  return path;
}

/** What must agree between a run and its continuation: all that its numbers depend on. */
function fingerprintOf(options: FineTuneOptions): string {
  const { config, steps, batchSize, learningRate, schedule, warmupSteps, weightDecay, captionDropout } = options;
  const { gradientAccumulation, maxGradientNorm, averageDecay, seed, dataName, dataset } = options;
  return JSON.stringify({
    config,
    steps,
    batchSize,
    learningRate,
    schedule,
    warmupSteps,
    weightDecay,
    captionDropout,
    gradientAccumulation,
    maxGradientNorm,
    averageDecay,
    seed,
    dataName,
    images: dataset.size,
  });
}
