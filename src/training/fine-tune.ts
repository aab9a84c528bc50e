// Fine-tunes a pipeline with adapters from a dataset to an adapter file. Node only, for its files.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type AdapterConfig, AdapterModel, FeRAConfig, FeRAModel } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import { FormatError, TrainingError } from "../errors.js";
import type { ModelWeights } from "../nn/index.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { writeFileAtomically } from "../storage/file-access.js";
import { Generator } from "../tensor/random.js";
import { ParameterAverage } from "./average.js";
import { prepareOutputFolder } from "./checkpoint.js";
import type { ImageDataset } from "./data/dataset.js";
import { DiffusionBatches } from "./diffusion-batches.js";
import { encodeDataset } from "./encode-dataset.js";
import { type DatasetIdentity, datasetChanges, datasetIdentity, textHash, weightsHash } from "./identity.js";
import { createOptimizer } from "./optimizers/index.js";
import { withDefaults } from "./options/option.js";
import { TRAINING_OPTIONS, type TrainingOptionValues } from "./options/training-options.js";
import { outputPath } from "./output-folder.js";
import { type StepReport, Trainer, type TrainingResult } from "./trainer.js";
import { ValidationPictures } from "./validation-pictures.js";

/** Settings of {@link fineTune}; those of {@link TRAINING_OPTIONS} that are left out have their defaults. */
export interface FineTuneOptions extends Partial<TrainingOptionValues> {
  pipeline: AnyPipeline;
  dataset: ImageDataset;
  /** Of the adapter: its class says which kind is trained. */
  config: AdapterConfig;
  /** Folder for the adapter, checkpoints, metrics and validation images. */
  output: string;
  /** As in `TrainStepOptions`, where steps are of one batch each; accumulated gradients add up in main memory. */
  stateOnDevice?: boolean;
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
  /** The model with the adapters as they were saved. */
  model: AdapterModel;
  /** The model, where FeRA was trained. */
  fera?: FeRAModel;
  /** The adapter's path. */
  adapter: string;
}

/**
 * Trains adapters on a dataset and writes them.
 *
 * On abort the run ends after its step with a checkpoint and the adapter so far; `finished` is then false.
 *
 * @throws {TrainingError} If the output folder cannot be written (before anything else), a loss is not finite, or what is
 *   resumed was trained with other options, another model or other data; the message names what differs.
 * @throws {ConfigError} If an option is invalid, or a caption is longer than the model allows.
 */
export async function fineTune(options: FineTuneOptions): Promise<FineTuneResult> {
  const { pipeline, dataset, config, output, onPhase, signal } = options;
  const values = withDefaults(TRAINING_OPTIONS, pickOptions(options), "fineTune");
  const { seed, batchSize, gradientAccumulation, averageDecay } = values;
  await prepareOutputFolder(output);
  const objective = createObjective(pipeline.schedulerConfig);
  const model =
    config instanceof FeRAConfig
      ? new FeRAModel(pipeline.unet, config, { seed })
      : new AdapterModel(pipeline.unet, config, { seed });
  const identity = datasetIdentity(dataset);
  const fingerprint = JSON.stringify({
    ...numberOptions(values),
    config,
    ...(await modelIdentity(pipeline, signal)),
    resolution: dataset.imageSize,
    dataset: textHash(JSON.stringify(identity)),
  });
  if (options.resume) await refuseOtherData(output, identity);
  const encoded = await encodeDataset(pipeline, dataset, (done) =>
    onPhase?.({ kind: "encoding", done, of: dataset.size }),
  );
  onPhase?.({ kind: "compiling" });
  const [, , latentHeight, latentWidth] = encoded.latents.shape as [number, number, number, number];
  const tokens = pipeline.tokenizer.maxLength;
  const optimizer = createOptimizer(values.optimizer, { lr: values.learningRate, weightDecay: values.weightDecay });
  const average = averageDecay === 0 ? undefined : new ParameterAverage(model.parameters, averageDecay);
  const trainable = await model.compileTrainStep({
    ...{ batchSize, latentHeight, latentWidth, tokens, optimizer, average, objective },
    gradientCheckpointing: values.gradientCheckpointing,
    stateOnDevice: gradientAccumulation === 1 ? options.stateOnDevice : false,
  });
  const previews = new ValidationPictures(pipeline, model, average, { ...values, output, size: dataset.imageSize });
  const trainer = new Trainer({
    trainable,
    batches: new DiffusionBatches(encoded, {
      batchSize,
      captionDropout: values.captionDropout,
      objective,
      generator: new Generator(seed),
    }),
    ...{ optimizer, average, output, gradientAccumulation, fingerprint, signal },
    steps: values.steps,
    schedule: values.schedule,
    warmupSteps: values.warmupSteps,
    maxGradientNorm: values.maxGradientNorm,
    checkpointEvery: values.checkpointEvery,
    onStep: async (report) => {
      options.onStep?.(report);
      const path = await previews.draw(report.step);
      if (path !== undefined) onPhase?.({ kind: "validation", path });
    },
  });
  if (options.resume) {
    const step = await trainer.resume();
    onPhase?.({ kind: "resumed", step });
  }
  await onPhase?.({ kind: "starting" });
  await writeJson(outputPath(output, "dataset"), identity);
  const result = await trainer.run();
  await trainable.release();
  await previews.release();
  if (result.parameters !== model.parameters) {
    for (const [name, { data }] of result.parameters) model.parameters.get(name)!.data.set(data);
  }
  const adapter = join(output, values.adapterName);
  await model.saveAdapters(adapter);
  return { ...result, model, ...(model instanceof FeRAModel && { fera: model }), adapter };
}

/** Those of the options that the table declares. */
function pickOptions(options: FineTuneOptions): Partial<TrainingOptionValues> {
  const named = Object.keys(TRAINING_OPTIONS) as (keyof TrainingOptionValues)[];
  return Object.fromEntries(named.map((name) => [name, options[name]]));
}

/** What of the options the numbers depend on. */
function numberOptions(values: TrainingOptionValues): Record<string, unknown> {
  const named = Object.entries(TRAINING_OPTIONS).filter(([, { changesNumbers }]) => changesNumbers);
  return Object.fromEntries(named.map(([name]) => [name, values[name as keyof TrainingOptionValues]]));
}

/** Hashes of all weights that the numbers depend on, and the scheduler's whole configuration. */
async function modelIdentity(pipeline: AnyPipeline, signal: AbortSignal | undefined): Promise<Record<string, unknown>> {
  const hashes: Record<string, unknown> = {};
  const parts: Record<string, { weights: ModelWeights }> = {
    unet: pipeline.unet,
    vae: pipeline.vae,
    textEncoder: pipeline.textEncoder,
    ...("textEncoder2" in pipeline && { textEncoder2: pipeline.textEncoder2 }),
  };
  for (const [name, { weights }] of Object.entries(parts)) hashes[name] = await weightsHash(weights, signal);
  return { ...hashes, scheduler: pipeline.schedulerConfig };
}

/** @throws {TrainingError} If the run in the folder was trained on other images or captions; it names them. */
async function refuseOtherData(output: string, identity: DatasetIdentity): Promise<void> {
  const path = outputPath(output, "dataset");
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return;
  let before: DatasetIdentity;
  try {
    before = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(path, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  const changes = datasetChanges(before, identity);
  if (changes.length === 0) return;
  const rest = changes.length > 3 ? `; and ${changes.length - 3} more` : "";
  throw new TrainingError(
    `${output}: the data are not those that this training began with: ${changes.slice(0, 3).join("; ")}${rest}. ` +
      "Put them back, or start anew in another output folder.",
  );
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomically(path, [new TextEncoder().encode(`${JSON.stringify(value, undefined, 1)}\n`)]);
}
