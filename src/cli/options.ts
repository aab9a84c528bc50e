// Reads a command's options from flags and from a configuration file: defaults < file < flags.

import { type Command, Option } from "commander";
import { FormatError, quoted } from "../errors.js";
import { readJson } from "../storage/index.js";
import {
  kebabCase,
  type OptionSpec,
  type OptionSpecs,
  type OptionValues,
  text,
  unknownNames,
} from "../training/options/option.js";
import { UsageError } from "./usage-error.js";

/** Values by camelCase option name, and where they come from for messages. */
export interface OptionLayer {
  /** A file; the flags are the layer without one. */
  source?: string;
  values: Readonly<Record<string, unknown>>;
}

const CONFIG = text("JSON file with options under their camelCase names; flags win over it", "FILE");

export { kebabCase };

/** Declares the options, and `--config` where the command takes one. */
export function addOptions(command: Command, specs: OptionSpecs, { config = false } = {}): Command {
  for (const [name, spec] of Object.entries(config ? { ...specs, config: CONFIG } : specs)) {
    const { placeholder, repeatable } = spec.syntax;
    const value = placeholder === undefined ? "" : ` <${placeholder}>`;
    const option = new Option(`--${kebabCase(name)}${value}`, spec.help + defaultNote(spec));
    if (repeatable) option.argParser((given: string, before: string[] | undefined) => [...(before ?? []), given]);
    else if (placeholder === "PATH") {
      // Of a setting the last one counts, as scripts expect; of two inputs one would be left out without a word.
      option.argParser((given: string, before: string | undefined) => {
        if (before === undefined || before === given) return given;
        throw new UsageError(command, `--${kebabCase(name)} is given twice: ${quoted(before)} and ${quoted(given)}.`);
      });
    }
    command.addOption(option);
  }
  const required = Object.entries(specs).filter(([, spec]) => spec.isRequired);
  const shown = required.map(([name, spec]) => `--${kebabCase(name)} ${spec.syntax.placeholder}`);
  const operands = command.registeredArguments.map((argument) => argument.name());
  return command.usage([...operands, ...shown, "[options]"].join(" "));
}

function defaultNote({ defaultValue, isRequired, schema }: OptionSpec<unknown>): string {
  if (isRequired) return " (required)";
  if (defaultValue === undefined || schema.type === "boolean") return "";
  return ` (default: ${Array.isArray(defaultValue) ? defaultValue.join(",") : String(defaultValue)})`;
}

/**
 * Checks and merges flags, the file that `--config` names, and the layers `before`, which come before both.
 *
 * @param given - In place of flags and file.
 * @throws {UsageError} That lists every unknown key, invalid value and missing option.
 */
export async function readOptions<S extends OptionSpecs>(
  command: Command,
  specs: S,
  before: readonly OptionLayer[] = [],
  given?: readonly OptionLayer[],
): Promise<OptionValues<S>> {
  const layers = [...before, ...(given ?? (await givenLayers(command, specs)))];
  const problems = layers.flatMap((layer) => unknownKeys(layer, specs));
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) {
    const layer = layers.findLast(({ values }) => values[name] !== undefined);
    if (!layer) {
      if (spec.isRequired) problems.push(`--${kebabCase(name)} is required`);
      values[name] = spec.defaultValue;
      continue;
    }
    const parsed = spec.schema.safeParse(layer.values[name]);
    if (parsed.success) values[name] = parsed.data;
    else problems.push(`${place(layer, name)} must be ${spec.rule}; got ${shown(command, layer, name)}`);
  }
  if (problems.length > 0) throw new UsageError(command, `${problems.join(";\n  ")}.`);
  return values as OptionValues<S>;
}

/** The options that were given, without defaults and without checks: the file's, then the flags. */
export async function givenLayers(command: Command, specs: OptionSpecs): Promise<OptionLayer[]> {
  const { config, ...raw } = command.opts();
  const flags: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) {
    const value = raw[name];
    flags[name] = typeof value === "string" && spec.syntax.parse ? spec.syntax.parse(value) : value;
  }
  const file = typeof config === "string" ? [{ source: config, values: await readConfig(command, config) }] : [];
  return [...file, { values: flags }];
}

async function readConfig(command: Command, path: string): Promise<Record<string, unknown>> {
  const json = await readJson(path).catch((error: unknown) => {
    if (error instanceof FormatError) throw new UsageError(command, `--config ${error.message}`);
    throw error;
  });
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw new UsageError(command, `--config ${path}: must hold a JSON object; got ${JSON.stringify(json)}.`);
}

function unknownKeys({ source, values }: OptionLayer, specs: OptionSpecs): string[] {
  return unknownNames(specs, values).map(({ name, advice }) => `${source}: unknown key "${name}"; ${advice}`);
}

const place = ({ source }: OptionLayer, name: string): string =>
  source === undefined ? `--${kebabCase(name)}` : `${source}: "${name}"`;

/** A flag as it was typed, a file's value as JSON. */
function shown(command: Command, layer: OptionLayer, name: string): string {
  return JSON.stringify(layer.source === undefined ? command.opts()[name] : layer.values[name]);
}
