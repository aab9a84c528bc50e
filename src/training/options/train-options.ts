// All options of `fera train`, and what of them contradicts itself: for the command line, and for the studio's form.

import { ConfigError } from "../../errors.js";
import { isOwnName } from "../output-names.js";
import { ADAPTER_OPTIONS, adapterPathProblem, sigmaProblem, toAdapterConfig } from "./adapter-options.js";
import { DATA, DATA_OPTIONS, TRAINING_DATA_OPTIONS } from "./data-options.js";
import { DISTRIBUTED_OPTIONS } from "./distributed-options.js";
import { MODEL_HELP, MODEL_OPTIONS } from "./model-options.js";
import { objectiveProblem } from "./objective-options.js";
import { optimizerProblem } from "./optimizer-options.js";
import { flag, integer, kebabCase, type OptionValues, repeated, text } from "./option.js";
import { textProblem } from "./text-options.js";
import { TRAINING_OPTIONS } from "./training-options.js";

/** What is trained, on what. */
export const SOURCE_OPTIONS = {
  model: text(MODEL_HELP, "MODEL").required(),
  data: DATA.required(),
  regularizationData: TRAINING_DATA_OPTIONS.regularizationData,
};

/** Where to. */
export const OUTPUT_OPTIONS = {
  output: text("folder for the adapter, checkpoints, metrics and validation images", "FOLDER").required(),
  resume: flag("go on with the training in --output, with its options"),
  overwrite: flag("replace the training in --output"),
};

/** How: what a resumed run has from the run before. */
export const SETTING_OPTIONS = {
  ...ADAPTER_OPTIONS,
  ...TRAINING_OPTIONS,
  resolution: integer("side of the images in pixels; by default the model's own size", { min: 1 }),
  validationData: repeated(
    "images that are not trained on, whose loss is measured along the training; by default those that " +
      "--validation-split holds out, if --validation-loss-every is given",
    "DATA",
  ).changesNothing(),
  ...DATA_OPTIONS,
  regularizationWeight: TRAINING_DATA_OPTIONS.regularizationWeight,
  ...MODEL_OPTIONS,
};

/** All of them. */
export const TRAIN_OPTIONS = { ...SOURCE_OPTIONS, ...OUTPUT_OPTIONS, ...SETTING_OPTIONS, ...DISTRIBUTED_OPTIONS };

/** Values of {@link TRAIN_OPTIONS}. */
export type TrainOptionValues = OptionValues<typeof TRAIN_OPTIONS>;

/** The first combination of options that contradicts itself, as a sentence that names flags; undefined where all is well. */
export function trainProblem(options: TrainOptionValues): string | undefined {
  const { resume, overwrite, adapterName, validateEvery, validationPrompts } = options;
  if (resume && overwrite) return "--resume and --overwrite exclude each other.";
  if (/[\\/]/.test(adapterName) || adapterName === "." || adapterName === "..") {
    return `--adapter-name must be a plain name inside --output; got ${JSON.stringify(adapterName)}.`;
  }
  if (isOwnName(adapterName)) {
    return `--adapter-name must not be the name of another file of the training; got ${JSON.stringify(adapterName)}.`;
  }
  if (validateEvery !== undefined && !validationPrompts) return "--validate-every needs --validation-prompts.";
  return (
    optimizerProblem(options, flagOf) ??
    textProblem(options, flagOf) ??
    sigmaProblem(options, flagOf) ??
    objectiveProblem(options, flagOf) ??
    adapterProblem(options)
  );
}

/** An option of another kind of adapter, if one is set, or a file that the adapter cannot be written to. */
function adapterProblem(options: TrainOptionValues): string | undefined {
  try {
    return adapterPathProblem(options.adapterName, toAdapterConfig(options, flagOf), options.trainTextEncoder);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}

/** `numBands` → `--num-bands`. */
export const flagOf = (option: string): string => `--${kebabCase(option)}`;
