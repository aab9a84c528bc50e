// The options of a training as the form gives them: checked as `fera train` checks them. Pure.

import { quoted } from "../errors.js";
import { DISTRIBUTED_OPTIONS } from "../training/options/distributed-options.js";
import { type OptionSpec, unknownNames } from "../training/options/option.js";
import { flagOf, TRAIN_OPTIONS, type TrainOptionValues, trainProblem } from "../training/options/train-options.js";
import { NOT_IN_THE_FORM } from "./option-descriptions.js";
import type { SettingsProblem, TrainSettings } from "./protocol.js";

/** Values, whole where there are no problems. */
export interface CheckedValues {
  problems: SettingsProblem[];
  /** With defaults; what was wrong is left out. */
  values: TrainSettings;
  /** What was given, and is well. */
  given: TrainSettings;
}

/** Checks every option by its declaration, and then all of them together. What is null was emptied in the form. */
export function checkValues(settings: TrainSettings): CheckedValues {
  const problems: SettingsProblem[] = [];
  const values: TrainSettings = {};
  const given: TrainSettings = {};
  for (const { name, advice } of unknownNames(TRAIN_OPTIONS, settings)) {
    problems.push({ option: name, message: `There is no option ${quoted(name)}; ${advice}.` });
  }
  for (const [name, spec] of Object.entries(TRAIN_OPTIONS) as [string, OptionSpec<unknown>][]) {
    const value = settings[name] ?? undefined;
    if (NOT_IN_THE_FORM.has(name)) {
      if (value !== undefined) problems.push({ option: name, message: `${flagOf(name)} cannot be set in the studio.` });
      // How processes find each other is no part of what a run is.
      values[name] = name in DISTRIBUTED_OPTIONS ? undefined : spec.defaultValue;
    } else if (value === undefined) {
      if (spec.isRequired) problems.push({ option: name, message: `${flagOf(name)} is required.` });
      values[name] = spec.defaultValue;
    } else {
      const parsed = spec.schema.safeParse(value);
      if (parsed.success) {
        values[name] = parsed.data;
        given[name] = parsed.data;
      } else {
        problems.push({ option: name, message: `${flagOf(name)} must be ${spec.rule}; got ${quoted(value)}.` });
      }
    }
  }
  if (problems.length === 0) {
    const message = trainProblem(values as TrainOptionValues);
    if (message !== undefined) problems.push({ ...optionIn(message), message });
  }
  return { problems, values, given };
}

/** The option that a message begins with. */
function optionIn(message: string): { option?: string } {
  const [flag] = /^--[a-z0-9-]+/.exec(message) ?? [];
  const option = Object.keys(TRAIN_OPTIONS).find((name) => flagOf(name) === flag);
  return option === undefined ? {} : { option };
}
