// fera evaluate: held-out noise-prediction error of a model, and of the same model with an adapter.

import { Command } from "commander";
import { AdapterModel, type LoadedAdapter, LoRAConfig } from "../adapters/index.js";
import type { DenoiserInputs } from "../diffusion/index.js";
import { createObjective } from "../diffusion/index.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { writeFileAtomically } from "../storage/file-access.js";
import { encodeDataset, noisePredictionError } from "../training/index.js";
import { DATA } from "../training/options/data-options.js";
import { PREDICTION_OPTIONS } from "../training/options/objective-options.js";
import { choice, integer, type OptionValues, pickValues, text } from "../training/options/option.js";
import {
  DATA_OPTIONS,
  dataOptionsOf,
  describeSkipped,
  heldOutWarnings,
  openSplit,
  SPLITS,
  WHOLE_LIST,
} from "./datasets.js";
import { counted } from "./format.js";
import { interruptible } from "./interrupt.js";
import {
  checkBucketStep,
  checkedResolution,
  EMBEDDING,
  loadAdapters,
  loadAnyPipeline,
  MODEL_HELP,
  MODEL_OPTIONS,
} from "./model-options.js";
import { addOptions, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import "./platform.js";
import { print, printError } from "./printable.js";
import { Progress } from "./progress.js";

const OPTIONS = {
  model: text(MODEL_HELP, "MODEL").required(),
  adapter: text("adapter to compare with the model by itself", "PATH"),
  embedding: EMBEDDING,
  data: DATA.required(),
  split: choice("which images: those that fera train leaves out, those it trains on, or all", SPLITS).withDefault(
    "heldOut",
  ),
  limit: integer("most images to use, spread evenly over all", { min: 1 }),
  timestepsPerImage: integer("timesteps per image, spread evenly", { min: 1 }).withDefault(4),
  batchSize: integer("predictions at once", { min: 1 }).withDefault(8),
  seed: integer("of the noise, which is the same for model and adapter", { min: 0 }).withDefault(0),
  resolution: integer("side of the images in pixels; by default the model's own size", { min: 1 }),
  json: text("writes the result to this file, too", "FILE"),
  ...DATA_OPTIONS,
  ...PREDICTION_OPTIONS,
  ...MODEL_OPTIONS,
};

type EvaluateOptions = OptionValues<typeof OPTIONS>;

/** The command. */
export function evaluateCommand(): Command {
  const command = new Command("evaluate").description("Measures the noise-prediction error on held-out images.");
  addOptions(command, OPTIONS, { config: true });
  return command.action(async () => {
    const options = await readOptions(command, OPTIONS);
    await interruptible("Stopping after this batch.", (signal) => evaluate(options, signal));
  });
}

/** The denoiser with the adapter as read; without a part for it, the denoiser itself. */
function adaptedBy(
  pipeline: AnyPipeline,
  loaded: LoadedAdapter,
  source: string,
): AdapterModel | AnyPipeline["denoiser"] {
  if (pipeline.fera) return pipeline.fera;
  if (loaded.layers.length === 0) return pipeline.denoiser;
  const model = new AdapterModel(pipeline.denoiser, new LoRAConfig());
  model.useAdapter(loaded, source);
  return model;
}

async function evaluate(options: EvaluateOptions, signal: AbortSignal): Promise<void> {
  const { model, adapter, data, split, limit, timestepsPerImage, batchSize, seed, json } = options;
  for (const file of [json, options.skippedList]) if (file !== undefined) await prepareOutputFile(file);
  const pipeline = await loadAnyPipeline(model, options);
  const resolution = checkedResolution(pipeline, options.resolution);
  checkBucketStep(pipeline, options.bucketStep);
  for (const file of options.embedding ?? []) await pipeline.loadTextualInversion(file);
  const objective = createObjective(pipeline.schedulerConfig, pickValues(PREDICTION_OPTIONS, options));
  const loaded = adapter === undefined ? undefined : await loadAdapters(pipeline, adapter);
  const adaptedModel = loaded && adaptedBy(pipeline, loaded, adapter!);
  const dataset = await openSplit(data, split, {
    ...dataOptionsOf(options),
    size: resolution,
    limit,
    signal,
    isForMeasuring: true,
  });
  for (const line of describeSkipped(dataset.skipped, WHOLE_LIST)) printError(line);
  if (split === "heldOut") for (const line of heldOutWarnings(dataset)) printError(line);
  const kind = { heldOut: "held-out ", train: "training ", all: "" }[split];
  const predictions = dataset.size * timestepsPerImage;
  print(
    `${counted(dataset.size, `${kind}image`)} of ${data.join(", ")}, ${counted(predictions, "prediction")}, seed ${seed}`,
  );

  const started = performance.now();
  const encode = async () => {
    const encodingBar = new Progress({ label: "encoding", total: dataset.size, unit: "images" });
    return encodeDataset(pipeline, dataset, (done) => {
      signal.throwIfAborted();
      encodingBar.update(done);
    }).finally(() => encodingBar.end());
  };
  pipeline.disableAdapters();
  const encoded = await encode();
  pipeline.enableAdapters();
  const measure = async (label: string, subject: Parameters<typeof noisePredictionError>[0], on = encoded) => {
    const bar = new Progress({ label, total: predictions, unit: "predictions" });
    let done = 0;
    const watched = {
      async predict(inputs: DenoiserInputs) {
        const output = await subject.predict(inputs);
        done = Math.min(predictions, done + batchSize);
        bar.update(done);
        return output;
      },
    };
    const settings = { objective, seed, timestepsPerImage, batchSize, signal };
    const { error } = await noisePredictionError(watched, on, settings).finally(() => bar.end());
    return error;
  };
  const base = await measure("base", pipeline.denoiser);
  // Adapters of text encoders change the captions' states.
  const adaptedTexts = loaded?.textEncoders?.size ? await encode() : encoded;
  const adapted = adaptedModel && (await measure("adapted", adaptedModel, adaptedTexts));
  print("mean squared error of the predicted noise");
  print(`  base      ${base.toFixed(5)}`);
  if (adapted !== undefined) {
    const change = (100 * (adapted - base)) / base;
    print(`  adapted   ${adapted.toFixed(5)}  (${change > 0 ? "+" : ""}${change.toFixed(2)} %)`);
  }
  if (json === undefined) return;
  const result = {
    model,
    adapter,
    data,
    split,
    resolution,
    images: dataset.size,
    timestepsPerImage,
    predictions,
    seed,
    skipped: dataset.skipped.length,
    base,
    adapted,
    seconds: (performance.now() - started) / 1000,
  };
  await writeFileAtomically(json, [new TextEncoder().encode(`${JSON.stringify(result, undefined, 2)}\n`)]);
  print(`written to ${json}`);
}
