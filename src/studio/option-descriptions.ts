// The options of a training as the page's form shows them, made of the declarations that the command line has. Pure.

import { z } from "zod";
import { ADAPTER_OPTIONS, kindsWith } from "../training/options/adapter-options.js";
import { BATCH_OPTIONS } from "../training/options/batch-options.js";
import { DATA_OPTIONS, TRAINING_DATA_OPTIONS } from "../training/options/data-options.js";
import { MODEL_OPTIONS } from "../training/options/model-options.js";
import { OBJECTIVE_OPTIONS } from "../training/options/objective-options.js";
import { OPTIMIZER_OPTIONS } from "../training/options/optimizer-options.js";
import { kebabCase, type OptionSpec, type OptionSpecs } from "../training/options/option.js";
import { RUN_OPTIONS } from "../training/options/run-options.js";
import { TEXT_OPTIONS } from "../training/options/text-options.js";
import { TRAIN_OPTIONS } from "../training/options/train-options.js";
import type { OptionDescription } from "./protocol.js";

/** What the studio decides by itself, and where a path would lead out of the chosen folders. */
export const NOT_IN_THE_FORM: ReadonlySet<string> = new Set([
  ...["output", "resume", "overwrite", "skippedList", "cacheDir", "followLinks", "distributed", "distributedTimeout"],
]);

/** Headings, and the tables whose options stand below each. */
const GROUPS: readonly (readonly [string, OptionSpecs])[] = [
  ["Model", { model: TRAIN_OPTIONS.model, ...MODEL_OPTIONS }],
  [
    "Data",
    {
      ...{ data: TRAIN_OPTIONS.data, resolution: TRAIN_OPTIONS.resolution },
      ...DATA_OPTIONS,
      ...TRAINING_DATA_OPTIONS,
      validationData: TRAIN_OPTIONS.validationData,
    },
  ],
  ["Adapter", ADAPTER_OPTIONS],
  ["Optimizer", OPTIMIZER_OPTIONS],
  ["Batches", BATCH_OPTIONS],
  ["Loss and noise", OBJECTIVE_OPTIONS],
  ["Text encoder", TEXT_OPTIONS],
  ["Run", RUN_OPTIONS],
];

/** The dozen that matter, in the order of the form. */
const MAIN: readonly string[] = [
  ...["model", "data", "resolution", "instancePrompt", "adapter", "rank", "numExperts", "steps", "batchSize"],
  ...["learningRate", "optimizer", "validationPrompts", "seed"],
];

/** All options, those that matter first. */
export function describeOptions(): OptionDescription[] {
  const descriptions = Object.entries(TRAIN_OPTIONS)
    .filter(([name]) => !NOT_IN_THE_FORM.has(name))
    .map(([name, spec]) => describe(name, spec as OptionSpec<unknown>));
  const rank = ({ name }: OptionDescription) => (MAIN.includes(name) ? MAIN.indexOf(name) : MAIN.length);
  return descriptions.sort((a, b) => rank(a) - rank(b));
}

/** What JSON Schema tells of an option. */
interface JsonSchema {
  type?: string;
  enum?: string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

function describe(name: string, spec: OptionSpec<unknown>): OptionDescription {
  const schema = z.toJSONSchema(spec.schema, { unrepresentable: "any", io: "input" }) as JsonSchema;
  // A list whose file may hold a single text has no type of its own.
  const kind = spec.syntax.repeatable ? "list" : kindOf(schema);
  const minimum = bound(schema.minimum, schema.exclusiveMinimum);
  const maximum = bound(schema.maximum, schema.exclusiveMaximum);
  const adapters = name in ADAPTER_OPTIONS ? kindsWith(name) : undefined;
  return {
    name,
    flag: `--${kebabCase(name)}`,
    help: spec.help,
    kind,
    ...(kind === "choice" && { choices: schema.enum! }),
    ...(spec.defaultValue !== undefined && { default: spec.defaultValue }),
    ...(minimum !== undefined && { minimum }),
    ...(maximum !== undefined && { maximum }),
    rule: spec.rule,
    group: GROUPS.find(([, table]) => name in table)?.[0] ?? "Other",
    isMain: MAIN.includes(name),
    ...(adapters && { adapters }),
  };
}

function kindOf({ type, enum: words }: JsonSchema): OptionDescription["kind"] {
  if (words) return "choice";
  switch (type) {
    case "integer":
      return "integer";
    case "number":
      return "number";
    case "boolean":
      return "switch";
    case "array":
      return "list";
    default:
      return "text";
  }
}

/** The limit, where it is one that somebody chose. */
function bound(including: number | undefined, excluding: number | undefined): number | undefined {
  const limit = including ?? excluding;
  return limit === undefined || Math.abs(limit) >= Number.MAX_SAFE_INTEGER ? undefined : limit;
}
