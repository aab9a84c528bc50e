// The options of a training in a tab: those of the command line that can be had here, with defaults for a small model, few
// images, and somebody who waits.

import { checkValues } from "../../../../src/studio/check-settings.js";
import { describeOptions } from "../../../../src/studio/option-descriptions.js";
import type {
  CheckedSettings,
  OptionDescription,
  SettingsProblem,
  TrainSettings,
} from "../../../../src/studio/protocol.js";
import { ADAPTER_OPTIONS } from "../../../../src/training/options/adapter-options.js";
import { flagWords, shellCommand } from "../../../../src/training/options/command-line.js";
import { OBJECTIVE_OPTIONS } from "../../../../src/training/options/objective-options.js";
import { OPTIMIZER_OPTIONS } from "../../../../src/training/options/optimizer-options.js";
import { flagOf, TRAIN_OPTIONS, type TrainOptionValues } from "../../../../src/training/options/train-options.js";
import type { TabDevice } from "../messages.js";
import { EMBEDDED, LATENT_SCALE, MODEL_SIZE, place } from "./place.js";

/** What a tab can do. Masks are not among it. */
const SUPPORTED: ReadonlySet<string> = new Set([
  ...["model", "data", "resolution", "instancePrompt", "captionPrefix", "captionSuffix", "flip"],
  ...[ADAPTER_OPTIONS, OPTIMIZER_OPTIONS, OBJECTIVE_OPTIONS].flatMap((options) => Object.keys(options)),
  ...["batchSize", "gradientAccumulation", "captionDropout", "seed", "gradientCheckpointing"],
  ...["validationPrompts", "validateEvery", "numValidationImages", "validationSteps", "validationGuidanceScale"],
  "device",
]);
for (const masked of ["unmaskedWeight", "normalizeMaskedLoss"]) (SUPPORTED as Set<string>).delete(masked);

const DEVICES: readonly string[] = ["webgpu", "wasm"] satisfies TabDevice[];
/** Where the installed package has the model. */
const MODEL_FOLDER = "node_modules/fera/assets/icons";
/** Two halvings of the latents. */
const MULTIPLE = 4 * LATENT_SCALE;
const LARGEST = 512;
/** Between two drawings, at most. */
const DRAWN_EVERY = 25;

/** Values of a training in a tab. */
export interface TabValues extends Omit<TrainOptionValues, "device"> {
  resolution: number;
  device: TabDevice;
}

/** All is well where there are no problems. */
export interface CheckedTabSettings extends CheckedSettings {
  values: TabValues;
}

/** Those of the tab where nothing is said. */
function tabDefaults(): TrainSettings {
  const { device, isSlow } = place();
  return {
    model: EMBEDDED,
    resolution: isSlow ? MODEL_SIZE / 2 : MODEL_SIZE,
    steps: 200,
    learningRate: 1e-3,
    batchSize: isSlow ? 2 : 4,
    validationSteps: isSlow ? 10 : 20,
    device,
  };
}

/** All options, as the form shows them. */
export function describeTabOptions(): OptionDescription[] {
  const defaults = tabDefaults();
  return describeOptions()
    .filter(({ name }) => SUPPORTED.has(name))
    .map((option) => ({
      ...option,
      ...(option.name in defaults && { default: defaults[option.name] }),
      ...(option.name === "device" && { choices: [...DEVICES], rule: ruleOfDevice, isMain: true }),
      ...(option.name === "data" && { help: "a data set of this browser" }),
      ...(option.name === "model" && { help: "the small model that comes with fera; other ones need fera studio" }),
      ...(option.name === "resolution" && { help: "side of the images in pixels", maximum: LARGEST }),
      ...(option.name === "validationPrompts" && {
        help: `${option.help}; by default the first image's caption`,
      }),
    }));
}

const ruleOfDevice = `one of ${DEVICES.join(", ")}`;

/** Values with defaults, and all that is wrong with them. */
export function checkTabSettings(given: TrainSettings): CheckedTabSettings {
  const { device, ...others } = { ...tabDefaults(), ...definedOf(given) };
  const refused: SettingsProblem[] = Object.keys(others)
    .filter((name) => name in TRAIN_OPTIONS && !SUPPORTED.has(name) && others[name] !== defaultOf(name))
    .map((name) => ({
      option: name,
      message: `${flagOf(name)} is not for a training in a tab. Leave it out, or train with fera studio or fera train.`,
    }));
  const supported = Object.fromEntries(
    Object.entries(others).filter(([name]) => SUPPORTED.has(name) || !(name in TRAIN_OPTIONS)),
  );
  const prompts = supported.validationPrompts;
  // The rule is that it needs prompts.
  const every = prompts === undefined ? {} : { validateEvery: supported.validateEvery ?? drawnEvery(supported.steps) };
  const { problems, values, given: known } = checkValues({ ...supported, ...every });
  if (typeof device !== "string" || !DEVICES.includes(device)) {
    problems.push({ option: "device", message: `--device must be ${ruleOfDevice}; got ${JSON.stringify(device)}.` });
  }
  const all = [...refused, ...problems];
  // Nothing is held out: a tab has too few images for that.
  const tabValues = { ...values, device, validationSplit: 0 } as unknown as TabValues;
  if (all.length === 0) all.push(...tabProblems(tabValues));
  const typed = { ...known, model: MODEL_FOLDER, validationSplit: 0, output: "runs/NAME" };
  return {
    problems: all,
    command: shellCommand(["npx", "fera", "train", ...flagWords(TRAIN_OPTIONS, typed)]),
    settings: definedOf({ ...tabValues }),
    values: tabValues,
  };
}

/** Steps between drawings where nothing is said: something to look at soon. */
const drawnEvery = (steps: unknown): number =>
  typeof steps === "number" && steps > 0 ? Math.min(DRAWN_EVERY, Math.ceil(steps / 4)) : DRAWN_EVERY;

const defaultOf = (name: string): unknown => TRAIN_OPTIONS[name as keyof typeof TRAIN_OPTIONS].defaultValue;

const definedOf = (values: TrainSettings): TrainSettings =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== null));

/** What the command line could do, but a tab cannot. */
function tabProblems({ model, data, resolution }: TabValues): SettingsProblem[] {
  const problems: SettingsProblem[] = [];
  const refuse = (option: string, message: string) =>
    problems.push({ option, message: `${flagOf(option)} ${message}` });
  if (model !== EMBEDDED) {
    refuse(
      "model",
      `must be "${EMBEDDED}": a tab trains the model that comes with fera; got ${JSON.stringify(model)}.`,
    );
  }
  if (data.length !== 1) refuse("data", `must be one data set: a tab trains on one at a time; got ${data.length}.`);
  if (resolution % MULTIPLE !== 0 || resolution > LARGEST) {
    refuse("resolution", `must be a multiple of ${MULTIPLE} up to ${LARGEST}; got ${resolution}.`);
  }
  return problems;
}
