// The options of a training in a tab: those of the command line that can be had here, from the same declarations.

import type {
  CheckedSettings,
  OptionDescription,
  SettingsProblem,
  TrainSettings,
} from "../../../../src/studio/protocol.js";
import { ADAPTER_OPTIONS, sigmaProblem, toAdapterConfig } from "../../../../src/training/options/adapter-options.js";
import { BATCH_OPTIONS } from "../../../../src/training/options/batch-options.js";
import { DATA, DATA_OPTIONS } from "../../../../src/training/options/data-options.js";
import { OBJECTIVE_OPTIONS, objectiveProblem } from "../../../../src/training/options/objective-options.js";
import { OPTIMIZER_OPTIONS, optimizerProblem } from "../../../../src/training/options/optimizer-options.js";
import {
  choice,
  integer,
  type OptionSpec,
  type OptionSpecs,
  type OptionValues,
  text,
} from "../../../../src/training/options/option.js";
import { RUN_OPTIONS } from "../../../../src/training/options/run-options.js";
import { commandOf, EMBEDDED, kebabCase } from "../command.js";
import { LATENT_SCALE, MODEL_SIZE, place } from "./place.js";

const { unmaskedWeight: _, normalizeMaskedLoss: _masked, ...objective } = OBJECTIVE_OPTIONS;
const { batchSize, gradientAccumulation, captionDropout, flip } = BATCH_OPTIONS;
const { instancePrompt, captionPrefix, captionSuffix } = DATA_OPTIONS;
const { gradientCheckpointing, seed, validationPrompts, validateEvery, numValidationImages } = RUN_OPTIONS;
const { validationSteps, validationGuidanceScale } = RUN_OPTIONS;

/** Options by heading. */
const GROUPS = {
  Data: {
    model: text("the model: the one that comes with fera", "MODEL").withDefault(EMBEDDED),
    data: DATA.required(),
    resolution: integer("side of the images in pixels", { min: 32, max: 512 }),
    ...{ instancePrompt, captionPrefix, captionSuffix, flip },
  },
  Adapter: ADAPTER_OPTIONS,
  Training: { ...OPTIMIZER_OPTIONS, batchSize, gradientAccumulation, captionDropout, seed, gradientCheckpointing },
  Objective: objective,
  Samples: {
    ...{ validationPrompts, validateEvery, numValidationImages, validationSteps, validationGuidanceScale },
  },
  Machine: {
    device: choice("where the training runs", ["webgpu", "wasm"]).changesNothing(),
  },
} as const satisfies Record<string, OptionSpecs>;

const SPECS = {
  ...GROUPS.Data,
  ...GROUPS.Adapter,
  ...GROUPS.Training,
  ...GROUPS.Objective,
  ...GROUPS.Samples,
  ...GROUPS.Machine,
};

/** Values of a training in a tab. */
export type TabValues = OptionValues<typeof SPECS>;

/** Those that matter most. */
const MAIN = new Set<string>([
  ...["model", "data", "resolution", "adapter", "rank", "numExperts", "steps", "learningRate", "batchSize"],
  ...["validationPrompts", "validateEvery", "seed", "device"],
]);

/** Other than on the command line: a small model, few images, and somebody who waits. */
function tabDefaults(): TrainSettings {
  const { device, isSlow } = place();
  return {
    steps: 200,
    learningRate: 1e-3,
    resolution: isSlow ? MODEL_SIZE / 2 : MODEL_SIZE,
    validateEvery: 25,
    device,
  };
}

/** All options, as the form shows them. */
export function describeOptions(): OptionDescription[] {
  const defaults = tabDefaults();
  return Object.entries(GROUPS).flatMap(([group, specs]) =>
    Object.entries(specs as OptionSpecs).map(([name, spec]) => ({
      ...describe(name, spec),
      ...(name in defaults && { default: defaults[name] }),
      group,
      isMain: MAIN.has(name),
    })),
  );
}

function describe(name: string, spec: OptionSpec<unknown>): Omit<OptionDescription, "group" | "isMain"> {
  const { help, rule, syntax, defaultValue } = spec;
  const words = syntax.placeholder?.includes("|") ? syntax.placeholder.split("|") : undefined;
  const isList = syntax.repeatable === true || rule.startsWith("a list");
  const kind = words
    ? "choice"
    : syntax.placeholder === undefined
      ? "switch"
      : isList
        ? "list"
        : rule.startsWith("an integer")
          ? "integer"
          : /^(a finite number|a number)/.test(rule)
            ? "number"
            : "text";
  const minimum = bound(rule, /(-?[\d.]+) or more|from (-?[\d.]+)/);
  const maximum = bound(rule, /(-?[\d.]+) or less|to (-?[\d.]+)/);
  return {
    name,
    flag: `--${kebabCase(name)}`,
    help,
    kind,
    rule,
    ...(words && { choices: words }),
    ...(defaultValue !== undefined && { default: defaultValue }),
    ...(minimum !== undefined && { minimum }),
    ...(maximum !== undefined && { maximum }),
  };
}

function bound(rule: string, pattern: RegExp): number | undefined {
  const found = pattern
    .exec(rule)
    ?.slice(1)
    .find((part) => part !== undefined);
  return found === undefined ? undefined : Number(found);
}

/** Values with defaults, and all that is wrong with them. */
export function checkSettings(given: TrainSettings): CheckedSettings & { values: TabValues } {
  const problems: SettingsProblem[] = [];
  const defaults = tabDefaults();
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(given)) {
    if (name in SPECS || given[name] === undefined) continue;
    const message = `${name} is not for a training in a tab. Leave it out, or train with fera studio or fera train.`;
    problems.push({ option: name, message });
  }
  for (const [name, spec] of Object.entries(SPECS as OptionSpecs)) {
    const value = given[name] ?? undefined;
    values[name] = value ?? defaults[name] ?? spec.defaultValue;
    if (value === undefined) {
      if (spec.isRequired) problems.push({ option: name, message: `${name} is missing: choose one.` });
      continue;
    }
    const parsed = spec.schema.safeParse(value);
    if (parsed.success) values[name] = parsed.data;
    else problems.push({ option: name, message: `${name} must be ${spec.rule}; got ${JSON.stringify(value)}.` });
  }
  const checked = values as TabValues;
  if (problems.length === 0) problems.push(...togetherProblems(checked));
  const settings = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  const plain = Object.fromEntries(
    Object.entries(SPECS as OptionSpecs).map(([name, spec]) => [name, spec.defaultValue]),
  );
  return { problems, command: commandOf(settings, { ...plain, model: undefined }), settings, values: checked };
}

/** What contradicts itself. */
function togetherProblems(values: TabValues): SettingsProblem[] {
  const { model, data, resolution = MODEL_SIZE } = values;
  if (model !== EMBEDDED) {
    const message = `model: a tab trains the model that comes with fera, "${EMBEDDED}"; got ${JSON.stringify(model)}. Train others with fera studio.`;
    return [{ option: "model", message }];
  }
  if (data.length !== 1)
    return [{ option: "data", message: `data: a tab trains on one data set; got ${data.length}.` }];
  // Two halvings of the latents.
  const multiple = LATENT_SCALE * 4;
  if (resolution % multiple !== 0) {
    return [{ option: "resolution", message: `resolution must be a multiple of ${multiple}; got ${resolution}.` }];
  }
  const name = (option: string) => option;
  const problem =
    optimizerProblem(values, name) ??
    sigmaProblem(values, name) ??
    objectiveProblem({ ...values, unmaskedWeight: 0, normalizeMaskedLoss: false }, name);
  if (problem) return [{ message: problem }];
  try {
    toAdapterConfig(values, name);
    return [];
  } catch (error) {
    return [{ message: (error as Error).message }];
  }
}
