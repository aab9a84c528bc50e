// Fine-tunes a pipeline with adapters from a dataset to an adapter file. Node only, for its files.

import { join } from "node:path";
import { checkAdapterPath } from "../adapters/adapter-format.js";
import { type AdapterConfig, AdapterModel, FeRAConfig, FeRAModel } from "../adapters/index.js";
import { createObjective } from "../diffusion/index.js";
import type { RankGroup } from "../distributed/index.js";
import { ConfigError, quoted, TrainingError } from "../errors.js";
import { type AnyPipeline, FlowPipeline } from "../pipelines/index.js";
import { isFailedWrite, writeFileAtomically } from "../storage/file-access.js";
import { Generator } from "../tensor/random.js";
import { ParameterAverage } from "./average.js";
import { compileForSizes } from "./bucketed-train-step.js";
import { openDatasetRows } from "./cache/dataset-rows.js";
import { checkCaptions, checkCaptionTokens } from "./check-captions.js";
import { prepareOutputFolder } from "./checkpoint.js";
import { closedExpertsMessage } from "./closed-experts.js";
import type { ImageDataset } from "./data/dataset.js";
import { isVaried, variedCaption } from "./data/varied-caption.js";
import { DiffusionBatches, type RowVariation } from "./diffusion-batches.js";
import type { EncodedRows } from "./encoded-dataset.js";
import { currentEngine } from "./engine.js";
import { datasetIdentity, trainingFingerprint } from "./identity.js";
import { stepsOf } from "./learning-rate.js";
import { clearRunLeftOvers } from "./left-overs.js";
import { LossScale } from "./loss-scale.js";
import { fitWithin, validationLossStepsOf } from "./memory/fit-fine-tuning.js";
import type { MemoryPlan } from "./memory/memory-plan.js";
import { samplerFor } from "./objective-sampler.js";
import { createOptimizer, FINE_TUNING_RATES, type Optimizer } from "./optimizers/index.js";
import { maskProblem, noisingOptionsOf, objectiveOptionsOf, objectiveProblem } from "./options/objective-options.js";
import { optimizerProblem } from "./options/optimizer-options.js";
import { pickValues, withDefaults } from "./options/option.js";
import { lastTextStep, textFactorOf, textProblem } from "./options/text-options.js";
import { TRAINING_OPTIONS, type TrainingOptionValues } from "./options/training-options.js";
import { outputPath } from "./output-folder.js";
import { rateFactors } from "./parameter-groups.js";
import { firstOnEachHost, refuseWholeBatchLosses, requireAgreement, samplesPerRank } from "./rank-agreement.js";
import { refuseOtherTraining } from "./refuse-other-training.js";
import { type MonitorPhase, RunMonitor } from "./report/run-monitor.js";
import { type DeliveredParameters, SavedModel } from "./saved-model.js";
import { addNewToken, saveNewToken } from "./text/new-tokens.js";
import { textEncoderConfig } from "./text/text-encoder-config.js";
import { isOfText } from "./text/text-encoders.js";
import { TextTraining } from "./text/text-training.js";
import { type StepReport, Trainer, type TrainingResult } from "./trainer.js";
import { ValidationPictures } from "./validation-pictures.js";

/** Settings of {@link fineTune}; those of `TRAINING_OPTIONS` that are left out have their defaults. */
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
  /** Images that are not trained on, of the training's size: their loss is measured along the training. */
  validationDataset?: ImageDataset | undefined;
  /** Awaited for "starting". */
  onPhase?: (phase: FineTunePhase) => void | Promise<void>;
  /** @param secondsLeft - With validations, drawings and checkpoints, as far as one of each has been timed. */
  onStep?: (report: StepReport, secondsLeft?: number) => void;
  /** Told what is good to know, such as that a damaged checkpoint was passed over; a warning of the process by default. */
  onMessage?: (message: string) => void;
  signal?: AbortSignal;
  /**
   * The processes that train together, as `joinMpi` gives them: each computes an equal part of every batch of `batchSize`
   * images. Rank 0 alone measures, tells, and writes to `output`.
   */
  ranks?: RankGroup | undefined;
}

/** Those beside the declared ones. */
const OWN_OPTIONS = [
  "pipeline",
  "dataset",
  "validationDataset",
  "config",
  "output",
  "stateOnDevice",
  "resume",
  "onPhase",
  "onStep",
  "onMessage",
  "signal",
  "ranks",
] satisfies (keyof FineTuneOptions)[];

/** What a fine-tuning is doing beside its steps. */
export type FineTunePhase =
  /** Bytes of weights, which tell one model from another. */
  | { kind: "hashing"; done: number; of: number }
  /** What of the data is encoded, or found in the cache. */
  | { kind: "encoding"; what: "captions" | "images"; done: number; of: number }
  | { kind: "compiling" }
  /** What each part of the training will take of memory, where there is a limit. */
  | { kind: "planned"; plan: MemoryPlan }
  | { kind: "resumed"; step: number }
  /** All is ready; nothing has been written yet. */
  | { kind: "starting" }
  /** One will be written now. */
  | { kind: "checkpoint" }
  | MonitorPhase;

/** What a fine-tuning made. */
export interface FineTuneResult extends TrainingResult {
  /** The model with the adapters as they were saved. */
  model: AdapterModel;
  /** The model, where FeRA was trained. */
  fera?: FeRAModel;
  /** What of the text encoders was trained, as it was saved. */
  text?: TextTraining;
  /** The adapter's path; of the token's vectors where nothing else was trained. */
  adapter: string;
  /** The path of a new token's vectors, where one was trained. */
  embedding?: string;
}

/**
 * Trains adapters on a dataset and writes them.
 *
 * On abort the run ends after its step with a checkpoint and the adapter so far; `finished` is then false.
 *
 * @throws {TrainingError} If the output folder cannot be written (before anything else), a loss is not finite, or what is
 *   resumed was trained with other options, another model or other data; the message names what differs.
 * @throws {ConfigError} If an option is invalid or unknown, or a caption is longer than the model allows.
 */
export async function fineTune(options: FineTuneOptions): Promise<FineTuneResult> {
  const { pipeline, dataset, config, output, onPhase, signal, ranks } = options;
  refuseUnknown(options);
  const isFirst = (ranks?.rank ?? 0) === 0;
  const onMessage = !isFirst ? () => {} : (options.onMessage ?? process.emitWarning);
  const values = withDefaults(TRAINING_OPTIONS, pickValues(TRAINING_OPTIONS, options), "fineTune");
  values.learningRate ??= FINE_TUNING_RATES[values.optimizer];
  const { seed, batchSize, gradientAccumulation, ema } = values;
  const ownSamples = samplesPerRank(batchSize, ranks);
  refuseWholeBatchLosses(config, ranks);
  if (isFirst) await prepareOutputFolder(output);
  const { trainTextEncoder, trainTokens, tokensOnly } = values;
  const embedding = trainTokens === undefined ? undefined : outputPath(output, "embedding");
  const adapter = tokensOnly ? undefined : join(output, values.adapterName);
  if (adapter !== undefined) checkAdapterPath(adapter, config, trainTextEncoder);
  const sameName = (name: string) => name;
  const problem =
    optimizerProblem(values, sameName) ??
    textProblem(values, sameName) ??
    objectiveProblem(values, sameName) ??
    maskProblem(values, dataset);
  if (problem) throw new ConfigError(`fineTune: ${problem}`);
  const objective = createObjective(pipeline.schedulerConfig, objectiveOptionsOf(values));
  const scheduler = samplerFor(pipeline, values, onMessage);
  const model =
    config instanceof FeRAConfig
      ? new FeRAModel(pipeline.denoiser, config, { seed })
      : await AdapterModel.create(pipeline.denoiser, config, { seed });
  const captions = Array.from({ length: dataset.size }, (_, i) => dataset.caption(i));
  if (pipeline instanceof FlowPipeline && (trainTextEncoder || trainTokens !== undefined)) {
    throw new ConfigError(
      `fineTune: ${trainTextEncoder ? "trainTextEncoder" : "trainTokens"} is not supported for ${pipeline.denoiser.className}: ` +
        "only the text encoders of Stable Diffusion 1, 2 and XL are trained here.",
    );
  }
  if (trainTokens !== undefined) {
    const { initializeTokens: initialize, tokenVectors: vectors } = values;
    await addNewToken(pipeline, { token: trainTokens, initialize: initialize!, vectors, captions });
  }
  checkCaptions(pipeline, captions, (i) => dataset.name(i));
  if (pipeline instanceof FlowPipeline) {
    checkCaptionTokens(pipeline, values.captionDropout > 0 ? [...captions, ""] : captions);
  }
  const text =
    !(pipeline instanceof FlowPipeline) && (trainTextEncoder || trainTokens !== undefined)
      ? await TextTraining.create({
          ...{ pipeline, denoiser: model, seed, trainsDenoiser: !tokensOnly },
          config: trainTextEncoder ? textEncoderConfig(config, values.textEncoderTargets) : undefined,
          trainsVectors: trainTokens !== undefined,
        })
      : undefined;
  const trained = text ?? model;
  if (text && options.onMessage) {
    onMessage(
      "Captions are encoded in every step, and no text states are kept: what makes them of captions is trained.",
    );
  }
  const { validationDataset } = options;
  const variation = variationOf(values, dataset);
  const fitted = await fitWithin(values, {
    ...{ ...options, model, trained, variation, trainsText: text !== undefined, batchSize: ownSamples },
  });
  if (fitted) {
    values.gradientCheckpointing = fitted.gradientCheckpointing;
    onPhase?.({ kind: "planned", plan: fitted.plan });
  }
  if (config instanceof FeRAConfig && config.feclWeight > 0 && pipeline.denoiser.weights.quantization === "int8") {
    onMessage(
      "The consistency loss compares two passes that differ little, and int8 rounds both: its gradient may be mostly noise. " +
        "Set the consistency loss's weight (feclWeight, --fecl-weight) to 0, or choose another dtype.",
    );
  }
  const identity = datasetIdentity(dataset);
  const fingerprint = await trainingFingerprint({
    ...{ pipeline, dataset, identity, config, values, signal },
    specs: TRAINING_OPTIONS,
    onHashed: (done, of) => onPhase?.({ kind: "hashing", done, of }),
  });
  const engine = currentEngine(pipeline.denoiser.runtime, ranks?.size);
  if (ranks) await requireAgreement(ranks, { fingerprint, identity, values, engine });
  if (options.resume && isFirst) await refuseOtherTraining(output, fingerprint, identity);
  const open = (data: ImageDataset, varied: { flip: boolean; randomCrop: boolean; variedCaptions: boolean }) =>
    openDatasetRows(pipeline, data, {
      cacheLatents: values.cacheLatents,
      cacheTextEncoderOutputs: values.cacheTextEncoderOutputs,
      cacheDir: values.cacheDir,
      ...varied,
      trainsText: text !== undefined,
      onMessage,
      onProgress: (what, done, of) => onPhase?.({ kind: "encoding", what, done, of }),
      signal,
    });
  const { flip, randomCrop } = values;
  const openRows = () => open(dataset, { flip, randomCrop, variedCaptions: variation.caption !== undefined });
  const rows = await firstOnEachHost(ranks, openRows);
  const validationLossEvery = validationLossStepsOf(values, validationDataset);
  let validationData: (EncodedRows & { close(): Promise<void> }) | undefined;
  let trainable: Awaited<ReturnType<typeof compileForSizes>> | undefined;
  let saved: SavedModel | undefined;
  let result: TrainingResult;
  try {
    const optimizer = createOptimizer(values.optimizer, { lr: values.learningRate, weightDecay: values.weightDecay });
    const average = ema === 0 ? undefined : new ParameterAverage(trained.parameters, ema, { warmup: values.emaWarmup });
    const rateOf = rateFactors(trained.parameters.keys(), { ...values, textFactor: textFactorOf(values) });
    const lastText = lastTextStep(values.stopTextEncoder, values.steps);
    if (isFirst && validationDataset && validationLossEvery > 0) {
      validationData = await open(validationDataset, { flip: false, randomCrop: false, variedCaptions: false });
    }
    if (isFirst && model instanceof FeRAModel && !tokensOnly) {
      const closed = await closedExpertsMessage(model, rows, objective);
      if (closed !== undefined) onMessage(closed);
    }
    const { captionDropout } = values;
    const part = ranks && { index: ranks.rank, of: ranks.size };
    const drawing = { ...{ batchSize, captionDropout, objective, part }, ...noisingOptionsOf(values) };
    onPhase?.({ kind: "compiling" });
    trainable = await compileForSizes(trained, { rows, sizes: rows.sizes }, drawing, {
      ...{ batchSize: ownSamples, optimizer, average, rateOf, objective },
      ...{ lossWeights: rows.hasLossWeights, lossMask: rows.hasMasks },
      tokens: pipeline.captionTokens(dataset.caption(0)),
      gradientCheckpointing: values.gradientCheckpointing,
      mixedPrecision: values.mixedPrecision,
      lossScale: values.mixedPrecision === "fp16" ? new LossScale() : undefined,
      // Gradients come into main memory where they are added up.
      stateOnDevice: gradientAccumulation === 1 && (ranks?.size ?? 1) === 1 ? options.stateOnDevice : false,
    });
    saved = new SavedModel(model, deliveredBy(trained, optimizer, average), text);
    const monitor = new RunMonitor({
      ...{ model: saved, objective, data: rows, validationData, validationLossEvery, output, onPhase },
      ...{ batchSize: ownSamples, steps: values.steps, checkpointEvery: values.checkpointEvery, log: values.log },
      ...{ validateEvery: values.validateEvery, onStep: options.onStep },
      makeRoom: fitted?.unloadsStep
        ? () => (trainable as { unload?(): Promise<void> }).unload?.() ?? Promise.resolve()
        : undefined,
      pictures: new ValidationPictures(pipeline, saved, {
        ...values,
        output,
        size: dataset.imageSize,
        scheduler,
        signal,
      }),
    });
    const trainer = new Trainer({
      trainable,
      batches: new DiffusionBatches(rows, { ...drawing, variation, generator: new Generator(seed) }),
      ...{ optimizer, average, rateOf, output, gradientAccumulation, fingerprint, signal, ranks, engine, onMessage },
      ...(lastText !== undefined && { isFrozen: (name: string, step: number) => step >= lastText && isOfText(name) }),
      steps: values.steps,
      schedule: values.schedule,
      scheduleShape: { restarts: values.restarts, power: values.power },
      warmupSteps: stepsOf("warmup", values.warmup, values.steps),
      ...(values.decaySteps !== undefined && { decaySteps: stepsOf("decaySteps", values.decaySteps, values.steps) }),
      maxGradientNorm: values.maxGradientNorm,
      checkpointEvery: values.checkpointEvery,
      keepCheckpoints: values.keepCheckpoints,
      onNonFinite: values.onNonFinite,
      nameOf: (row) => dataset.name(row),
      measure: (step) => monitor.measure(step),
      onStep: (report, measures) => monitor.afterStep(report, measures),
      onRestore: (step) => monitor.restored(step),
      onCheckpoint: (event) => {
        monitor.checkpoint(event);
        if (event === "writing") onPhase?.({ kind: "checkpoint" });
      },
    });
    let step = 0;
    if (options.resume) {
      step = await trainer.resume();
      onPhase?.({ kind: "resumed", step });
    }
    await onPhase?.({ kind: "starting" });
    if (isFirst) {
      await writeJson(outputPath(output, "dataset"), identity);
      await clearRunLeftOvers(output);
      await monitor.begin(step);
    }
    result = await trainer.run();
  } finally {
    await trainable?.release();
    await saved?.release();
    await rows.close();
    await validationData?.close();
  }
  if (result.parameters !== trained.parameters) {
    for (const [name, { data }] of result.parameters) trained.parameters.get(name)!.data.set(data);
  }
  text?.useOwnVectors();
  try {
    if (adapter !== undefined && isFirst) await model.saveAdapters(adapter, { textEncoders: text?.fileParts() });
    if (embedding !== undefined && isFirst) await saveNewToken(pipeline, trainTokens!, embedding);
  } catch (cause) {
    if (!isFailedWrite(cause)) throw cause;
    throw new TrainingError(
      `${(cause as Error).message} ${result.checkpoint} is intact; resume once this is mended, which writes the adapter.`,
      { cause },
    );
  }
  return {
    ...result,
    model,
    ...(text && { text }),
    ...(model instanceof FeRAModel && { fera: model }),
    adapter: adapter ?? embedding!,
    ...(embedding !== undefined && { embedding }),
  };
}

/** What of images and captions differs each time. */
function variationOf(values: TrainingOptionValues, dataset: ImageDataset): RowVariation {
  const { flip, randomCrop, shuffleCaption: shuffle, keepTokens, tagDropout } = values;
  const tags = { shuffle, keepTokens, tagDropout };
  return {
    ...{ flip, randomCrop },
    ...(isVaried(tags) && {
      caption: (index: number, generator: Generator) => variedCaption(dataset.caption(index), tags, generator),
    }),
  };
}

/** What is saved and drawn, where that is not what is trained; current whenever it is asked for. */
function deliveredBy(
  model: Pick<AdapterModel, "parameters">,
  optimizer: Optimizer,
  average: ParameterAverage | undefined,
): DeliveredParameters | undefined {
  if (average || !optimizer.deliversAverage) return average;
  return {
    get values() {
      return optimizer.delivered(model.parameters);
    },
  };
}

/** @throws {ConfigError} If an option is none: it would be left out in silence. */
function refuseUnknown(options: FineTuneOptions): void {
  const known = [...Object.keys(TRAINING_OPTIONS), ...OWN_OPTIONS];
  const unknown = Object.keys(options).filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  throw new ConfigError(`fineTune: unknown option ${unknown.map(quoted).join(", ")}; known are ${known.join(", ")}.`);
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomically(path, [new TextEncoder().encode(`${JSON.stringify(value, undefined, 1)}\n`)]);
}
