// fera train: fine-tunes a pipeline on images, from options to an adapter file.

import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { Command } from "commander";
import type { RankGroup } from "../distributed/index.js";
import { ConfigError, quoted } from "../errors.js";
import {
  checkCaptions,
  type FineTuneResult,
  fineTune,
  type ImageDataset,
  latestCheckpoint,
  lossCurve,
  prepareOutputFolder,
  readMetrics,
  writeRunReport,
} from "../training/index.js";
import { toAdapterConfig } from "../training/options/adapter-options.js";
import { type OptionSpec, pickValues } from "../training/options/option.js";
import {
  flagOf,
  SETTING_OPTIONS,
  TRAIN_OPTIONS,
  type TrainOptionValues,
  trainProblem,
} from "../training/options/train-options.js";
import { TRAINING_OPTIONS } from "../training/options/training-options.js";
import { outputPath } from "../training/output-folder.js";
import { firstOnEachHost } from "../training/rank-agreement.js";
import {
  absoluteData,
  captionWarnings,
  dataOptionsOf,
  describeSkipped,
  describeTrainingData,
  evaluationArguments,
  examplePrompt,
  frameWarnings,
  heldOutWarnings,
  openSplit,
  upscaleWarnings,
  validationWarnings,
  WHOLE_LIST,
} from "./datasets.js";
import { counted, formatCount, shellCommand } from "./format.js";
import { interruptedExitCode, interruptible } from "./interrupt.js";
import { checkBucketStep, checkedResolution, loadAnyPipeline } from "./model-options.js";
import { addOptions, givenLayers, type OptionLayer, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import "./platform.js";
import { print, printable, printError } from "./printable.js";
import { fromFirst, joinedRanks, onAllRanks, threadsPerRank } from "./ranks.js";
import { TrainBars } from "./train-bars.js";
import { alone, clearRun, readSettings, refuseStartedRun, settingsPath, writeSettings } from "./training-run.js";
import { UsageError } from "./usage-error.js";

/** The command. */
export function trainCommand(): Command {
  const command = new Command("train").description(
    "Fine-tunes a diffusion model with adapters: FeRA, LoRA and its relatives.",
  );
  addOptions(command, TRAIN_OPTIONS, { config: true });
  return command.action(async () => {
    const ranks = await joinedRanks(command, await givenLayers(command, TRAIN_OPTIONS));
    process.exitCode = await onAllRanks(ranks, async () => {
      const options = await readTrainOptions(command, ranks);
      const isFirst = (ranks?.rank ?? 0) === 0;
      if (isFirst) await prepareOutputFolder(options.output);
      return interruptible(isFirst ? "Stopping after this step." : undefined, (signal) => {
        signal.addEventListener("abort", () => ranks?.expectEnd(), { once: true });
        const run = () => train(command, options, { signal, ranks, isFirst });
        return isFirst ? alone(options.output, run) : run();
      });
    });
  });
}

/** Flags and file, on top of the options of the run that is resumed. */
async function readTrainOptions(command: Command, ranks: RankGroup | undefined): Promise<TrainOptionValues> {
  const given = await givenLayers(command, TRAIN_OPTIONS);
  const last = (name: string) => given.findLast(({ values }) => values[name] !== undefined)?.values[name];
  const output = last("output");
  const before: OptionLayer[] = [];
  if (last("resume") === true && typeof output === "string") {
    // The others need not reach the output folder.
    const started = await fromFirst(ranks, () => readSettings(output));
    if (started) {
      before.push({ source: settingsPath(output), values: started });
      refuseChanges(command, started, given);
    } else if (last("model") === undefined || last("data") === undefined) {
      const missing = basename(settingsPath(output));
      const hasCheckpoint = (await latestCheckpoint(outputPath(output, "checkpoints"))) !== undefined;
      throw new UsageError(
        command,
        hasCheckpoint
          ? `--resume: ${output} holds checkpoints, but not the training's options (no ${missing}). Give them all again.`
          : `--resume: ${output} holds no training that could go on (no ${missing}). ` +
              "Name another --output, or start one with --model and --data.",
      );
    }
  }
  const options = await readOptions(command, TRAIN_OPTIONS, before);
  const problem = trainProblem(options);
  if (problem) throw new UsageError(command, problem);
  return options;
}

function refuseChanges(command: Command, started: Record<string, unknown>, given: readonly OptionLayer[]): void {
  const valueBefore = (name: keyof typeof SETTING_OPTIONS): unknown =>
    started[name] ?? SETTING_OPTIONS[name].defaultValue;
  const names = Object.keys(SETTING_OPTIONS) as (keyof typeof SETTING_OPTIONS)[];
  const before = Object.fromEntries(names.map((name) => [name, valueBefore(name)]));
  const problems = names.flatMap((name) => {
    const spec: OptionSpec<unknown> = SETTING_OPTIONS[name];
    const value = given.findLast(({ values }) => values[name] !== undefined)?.values[name];
    const isSame = value === undefined || JSON.stringify(value) === JSON.stringify(before[name]);
    if (isSame || !spec.isKept(before)) return [];
    const why = spec.whyKept === undefined ? "" : ` (${spec.whyKept})`;
    return [
      `${flagOf(name)} was ${before[name] === undefined ? "not set" : quoted(before[name])}; got ${quoted(value)}${why}`,
    ];
  });
  if (problems.length === 0) return;
  throw new UsageError(
    command,
    `a resumed training keeps its options: ${problems.join("; ")}. Leave them out, or start anew in another --output.`,
  );
}

/** Where a training runs: beside what other processes, and until when. */
interface Setting {
  signal: AbortSignal;
  ranks: RankGroup | undefined;
  /** Whether this process is the one that tells and writes. */
  isFirst: boolean;
}

async function train(command: Command, options: TrainOptionValues, setting: Setting): Promise<number> {
  const { signal, ranks, isFirst } = setting;
  const { output, resume, adapterName } = options;
  const adapter = join(output, adapterName);
  if (isFirst) {
    if (!resume && !options.overwrite) await refuseStartedRun(output, adapter);
    if (options.skippedList !== undefined) await prepareOutputFile(options.skippedList);
    printError(`loading   ${options.model}`);
  }
  const threads = options.threads ?? (await threadsPerRank(ranks));
  const pipeline = await firstOnEachHost(ranks, () => loadAnyPipeline(options.model, { ...options, threads }));
  const resolution = checkedResolution(pipeline, options.resolution);
  checkBucketStep(pipeline, options.bucketStep);
  if (options.validationPrompts) checkCaptions(pipeline, options.validationPrompts);
  const open = () =>
    openSplit(options.data, "train", {
      ...dataOptionsOf(options),
      ...(!isFirst && { skippedList: undefined }),
      regularizationData: options.regularizationData,
      regularizationWeight: options.regularizationWeight,
      size: resolution,
      exclude: [output],
      signal,
    });
  const dataset = await firstOnEachHost(ranks, open);
  const shared = { pipeline, dataset, config: toAdapterConfig(options, flagOf), output, resume, signal, ranks };
  if (!isFirst) {
    const { finished } = await fineTune({ ...pickValues(TRAINING_OPTIONS, options), ...shared });
    return finished ? 0 : interruptedExitCode();
  }
  tellData(options, dataset);
  const validationDataset = await openValidationData(options, dataset, resolution, signal);
  if (validationDataset && options.validationData) {
    for (const line of validationWarnings(dataset, validationDataset)) printError(line);
  }

  // Kept before a checkpoint is, or a step: what failed sooner is no training that could be resumed.
  let isKept = false;
  const keepSettings = () => {
    if (!isKept) writeSettings(output, settingsOf(options, resolution));
    isKept = true;
  };
  const bars = new TrainBars(options.steps);
  const result = await fineTune({
    ...pickValues(TRAINING_OPTIONS, options),
    ...shared,
    validationDataset,
    onMessage: printError,
    onPhase: (phase) => {
      // Before the first step there is nothing to keep.
      if (phase.kind === "encoding") signal.throwIfAborted();
      if (phase.kind === "checkpoint") keepSettings();
      bars.phase(phase);
      // Not before all is ready: what is replaced would be lost to a mistake in an option.
      if (phase.kind !== "starting" || !options.overwrite) return undefined;
      signal.throwIfAborted();
      return clearRun(output, adapter);
    },
    onStep: (report, secondsLeft) => {
      keepSettings();
      bars.step(report, secondsLeft);
    },
  });
  bars.end();
  if (!result.finished) keepSettings();
  const reported = await writeReport(options, settingsOf(options, resolution), result.finished).catch((cause) => {
    // What was trained is there, whatever becomes of its pictures.
    print(`adapter   ${result.adapter}`);
    throw cause;
  });
  if (!result.finished) {
    print(`stopped   after step ${result.step} of ${options.steps}; checkpoint ${result.checkpoint}`);
    print(`To go on: ${shellCommand(["npx", "fera", command.name(), "--resume", "--output", output])}`);
    return interruptedExitCode();
  }
  tellResult(options, result, dataset, reported);
  return 0;
}

/** What is trained on, and what is odd about it. */
function tellData(options: TrainOptionValues, dataset: ImageDataset): void {
  for (const line of describeTrainingData(dataset, options.data, options.validationSplit)) print(line);
  const warnings = [
    ...captionWarnings(dataset),
    ...frameWarnings(dataset),
    ...upscaleWarnings(dataset),
    ...heldOutWarnings(dataset),
  ];
  for (const line of warnings) printError(line);
  for (const line of describeSkipped(dataset.skipped, WHOLE_LIST)) printError(line);
}

/** What the validation loss is measured on, if it is: the folder that is named, else what is held out. */
async function openValidationData(
  options: TrainOptionValues,
  { heldOut }: ImageDataset,
  size: number,
  signal: AbortSignal,
): Promise<ImageDataset | undefined> {
  const { validationData, validationLossEvery, data, output } = options;
  if (validationData === undefined && !validationLossEvery) return undefined;
  const settings = {
    ...dataOptionsOf(options),
    ...{ skippedList: undefined, size, exclude: [output], signal, isForMeasuring: true },
  };
  if (validationData !== undefined) return openSplit(validationData, "all", settings);
  if (heldOut > 0) return openSplit(data, "heldOut", settings);
  throw new ConfigError(
    "--validation-loss-every needs images that are not trained on: none is held out. " +
      "Name some with --validation-data, or hold out more with --validation-split.",
  );
}

/** What `--resume` needs to know; paths so that they hold from any folder. */
function settingsOf(options: TrainOptionValues, resolution: number): object {
  const { output, resume, overwrite, skippedList, distributed, distributedTimeout, ...settings } = options;
  const data = settings.data.map(absoluteData);
  const regularizationData = settings.regularizationData?.map(absoluteData);
  // What is no path here is a model's name on the hub.
  const model = existsSync(settings.model) ? resolve(settings.model) : settings.model;
  const cacheDir = settings.cacheDir === undefined ? undefined : resolve(settings.cacheDir);
  const validationData = settings.validationData?.map(absoluteData);
  return { ...settings, model, data, regularizationData, validationData, resolution, cacheDir };
}

/** Plots and `report.html`. */
async function writeReport(options: TrainOptionValues, settings: object, finished: boolean) {
  const { output, adapter, model, data } = options;
  const { report, plots } = await writeRunReport(output, {
    title: `${adapter} adapter on ${printable(model)}, trained on ${printable(data.join(", "))}`,
    command: shellCommand(["npx", "fera", ...process.argv.slice(2)]),
    settings: { ...settings },
    finished,
  });
  const { smoothed } = lossCurve(await readMetrics(outputPath(output, "metrics")));
  return { report, smoothed, picture: plots.get("loss") };
}

type Reported = Awaited<ReturnType<typeof writeReport>>;

function tellResult(
  options: TrainOptionValues,
  result: FineTuneResult,
  dataset: ImageDataset,
  reported: Reported,
): void {
  const { model, data } = options;
  const { smoothed, report: page, picture } = reported;
  const { layers, parameterCount } = result.model;
  const { text, embedding } = result;
  const isTokenAlone = result.adapter === embedding;
  const size = `${counted(layers.length, "layer")}, ${formatCount(parameterCount)} parameters`;
  if (!isTokenAlone) print(`adapter   ${result.adapter} (${size})`);
  if (text && options.trainTextEncoder)
    print(`text      ${formatCount(text.textParameterCount)} parameters of text encoders`);
  if (embedding) print(`token     ${embedding} (${printable(options.trainTokens!)})`);
  const drawn = picture ? `, drawn in ${picture}` : "";
  // A resumed run whose metrics were deleted has none.
  if (smoothed.length > 0) print(`loss      ${smoothed.at(-1)!.toFixed(4)} (mean of the last steps)${drawn}`);
  const scaled = [
    ...["--model", model],
    ...(isTokenAlone ? [] : ["--adapter", result.adapter]),
    ...(embedding ? ["--embedding", embedding] : []),
  ];
  if (result.best) {
    const { step, loss } = result.best;
    print(`best      validation loss ${loss.toFixed(5)} at step ${step}, whose checkpoint is kept`);
  }
  print(`report    ${page}`);
  print("Next:");
  print(
    `  ${shellCommand(["npx", "fera", "generate", ...scaled, "--prompt", examplePrompt(dataset), "--output", "image.png"])}`,
  );
  print(`  ${shellCommand(["npx", "fera", "evaluate", ...scaled, ...evaluationArguments(dataset, data, options)])}`);
}
