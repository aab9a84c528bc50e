// What an option is: its check, its default, its syntax as a flag, its help, and whether it changes a training's numbers.
// One declaration serves flags, configuration files, help, run.json and the fingerprint that guards a resumed run.

import { z } from "zod";
import { ConfigError, quoted } from "../../errors.js";

/** How an option is written on the command line. */
interface FlagSyntax {
  /** What stands for the value in the help; a switch has none. */
  placeholder?: string;
  /** Turns one text into a value for the schema; what it cannot turn stays text, and the schema refuses it. */
  parse?: (text: string) => unknown;
  /** Whether the flag may be given several times, each time with one value. */
  repeatable?: boolean;
}

/** Where a resumed run must have an option's old value. */
interface KeptWhere {
  /** Over the values of all options. */
  isKept(values: Readonly<Record<string, unknown>>): boolean;
  why: string;
}

/** One option. T is what a command gets; `undefined` is part of T unless there is a default or it is required. */
export class OptionSpec<T> {
  constructor(
    readonly schema: z.ZodType,
    /** Completes "must be …". */
    readonly rule: string,
    readonly help: string,
    readonly syntax: FlagSyntax,
    readonly defaultValue?: T,
    readonly isRequired = false,
    /** False for what only says where, how often or how fast: a resumed run may have another value. */
    readonly changesNumbers: boolean | KeptWhere = true,
  ) {}

  /** Whether a resumed run must have the old value, among the values of all options. */
  isKept(values: Readonly<Record<string, unknown>>): boolean {
    return typeof this.changesNumbers === "boolean" ? this.changesNumbers : this.changesNumbers.isKept(values);
  }

  /** Why a resumed run must have the old value, where that depends on other options. */
  get whyKept(): string | undefined {
    return typeof this.changesNumbers === "boolean" ? undefined : this.changesNumbers.why;
  }

  /** With a value for when none is given. */
  withDefault(value: NonNullable<T>): OptionSpec<NonNullable<T>> {
    return new OptionSpec(this.schema, this.rule, this.help, this.syntax, value, false, this.changesNumbers);
  }

  /** What a resumed run may change. */
  changesNothing(): OptionSpec<T> {
    return this.withNumbers(false);
  }

  /** What a resumed run may change unless `isKept`. */
  keptWhere(isKept: KeptWhere["isKept"], why: string): OptionSpec<T> {
    return this.withNumbers({ isKept, why });
  }

  private withNumbers(changesNumbers: boolean | KeptWhere): OptionSpec<T> {
    const { schema, rule, help, syntax, defaultValue, isRequired } = this;
    return new OptionSpec(schema, rule, help, syntax, defaultValue, isRequired, changesNumbers);
  }

  /** Without which the command does not run. */
  required(): OptionSpec<NonNullable<T>> {
    return new OptionSpec<NonNullable<T>>(this.schema, this.rule, this.help, this.syntax, undefined, true);
  }
}

/** Options by their camelCase names. */
export type OptionSpecs = Readonly<Record<string, OptionSpec<unknown>>>;

/** What a command gets. */
export type OptionValues<S extends OptionSpecs> = { [K in keyof S]: S[K] extends OptionSpec<infer T> ? T : never };

/** `numBands` → `num-bands`. */
export const kebabCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

// `Number("")` would be 0.
const toNumber = (text: string): unknown => (text.trim() === "" ? text : Number(text));

/** An integer of `min` or more, `max` or less. */
export function integer(help: string, { min, max }: { min?: number; max?: number } = {}) {
  const schema = z
    .int()
    .min(min ?? -Number.MAX_SAFE_INTEGER)
    .max(max ?? Number.MAX_SAFE_INTEGER);
  const range = min === undefined ? "" : max === undefined ? ` of ${min} or more` : ` from ${min} to ${max}`;
  return new OptionSpec<number | undefined>(schema, `an integer${range}`, help, { placeholder: "N", parse: toNumber });
}

/** What a number must be; `above` and `below` are excluded. */
interface NumberRange {
  min?: number;
  max?: number;
  above?: number;
  below?: number;
}

/** A finite number. */
export function number(help: string, { min, max, above, below }: NumberRange = {}) {
  let schema = z.number();
  const rules: string[] = [];
  if (min !== undefined) {
    schema = schema.min(min);
    rules.push(`${min} or more`);
  }
  if (above !== undefined) {
    schema = schema.gt(above);
    rules.push(`above ${above}`);
  }
  if (max !== undefined) {
    schema = schema.max(max);
    rules.push(`${max} or less`);
  }
  if (below !== undefined) {
    schema = schema.lt(below);
    rules.push(`below ${below}`);
  }
  const rule = ["a finite number", rules.join(" and ")].filter(Boolean).join(", ");
  return new OptionSpec<number | undefined>(schema, rule, help, { placeholder: "X", parse: toNumber });
}

/** A text that is not empty. */
export function text(help: string, placeholder: string) {
  return new OptionSpec<string | undefined>(z.string().min(1), "a text that is not empty", help, { placeholder });
}

/** An amount of memory, as a text. */
export function memorySize(help: string) {
  const schema = z.string().regex(/^\s*\d+(?:\.\d+)?\s*[MG]i?B\s*$/i);
  return new OptionSpec<string | undefined>(schema, "a size such as 6GB or 800MB", help, { placeholder: "SIZE" });
}

/** A text that may be empty. */
export function anyText(help: string, placeholder: string) {
  return new OptionSpec<string | undefined>(z.string(), "a text", help, { placeholder });
}

/** One of some words. */
export function choice<const Words extends readonly string[]>(help: string, words: Words) {
  const syntax = { placeholder: words.join("|") };
  return new OptionSpec<Words[number] | undefined>(z.enum(words), `one of ${words.join(", ")}`, help, syntax);
}

/** Words with commas between them; a list in a file. */
export function list(help: string, placeholder: string) {
  const schema = z.array(z.string().min(1)).min(1);
  const parse = (given: string) => given.split(",").map((item) => item.trim());
  return new OptionSpec<string[] | undefined>(schema, "a list without empty items", help, { placeholder, parse });
}

/** A flag that may be given several times; a list in a file. */
export function repeated(help: string, placeholder: string) {
  // A file may name a single one without a list.
  const schema = z.preprocess((given) => (typeof given === "string" ? [given] : given), z.array(z.string()).min(1));
  return new OptionSpec<string[] | undefined>(schema, "a list of at least one text", `${help} (repeatable)`, {
    placeholder,
    repeatable: true,
  });
}

/** Numbers by pattern of layers, each as PATTERN=NUMBER; the flag may be given several times. */
export function patternNumbers(help: string) {
  const schema = z.array(z.string().regex(/^.+=\s*-?\d*\.?\d+(e[+-]?\d+)?\s*$/i)).min(1);
  return new OptionSpec<string[] | undefined>(schema, "a list of texts PATTERN=NUMBER", `${help} (repeatable)`, {
    placeholder: "PATTERN=N",
    repeatable: true,
  });
}

/** A switch: off unless given. */
export function flag(help: string) {
  return new OptionSpec<boolean>(z.boolean(), "true or false", help, {}, false);
}

/**
 * Values with defaults for what is left out, each checked by its declaration.
 *
 * @param where - Names the caller in messages.
 * @throws {ConfigError} That names the option, the rule and what came.
 */
export function withDefaults<S extends OptionSpecs>(
  specs: S,
  given: Readonly<Partial<Record<keyof S, unknown>>>,
  where: string,
): OptionValues<S> {
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) {
    const value = given[name];
    if (value === undefined) {
      values[name] = spec.defaultValue;
      continue;
    }
    const parsed = spec.schema.safeParse(value);
    if (!parsed.success) throw new ConfigError(`${where}: ${name} must be ${spec.rule}; got ${quoted(value)}.`);
    values[name] = parsed.data;
  }
  return values as OptionValues<S>;
}

/** Names that a table does not declare, each with the one that was perhaps meant. */
export function unknownNames(
  specs: OptionSpecs,
  values: Readonly<Record<string, unknown>>,
): { name: string; advice: string }[] {
  const plain = (name: string) => name.replace(/[-_]/g, "").toLowerCase();
  return Object.keys(values)
    .filter((name) => !Object.hasOwn(specs, name))
    .map((name) => {
      const meant = Object.keys(specs).find((known) => plain(known) === plain(name));
      return { name, advice: meant ? `write ${meant}` : `known are ${Object.keys(specs).join(", ")}` };
    });
}

/** Those values that a table declares. */
export function pickValues<S extends OptionSpecs>(
  specs: S,
  values: Readonly<Partial<Record<keyof S, unknown>>>,
): Partial<OptionValues<S>> {
  const names = Object.keys(specs) as (keyof S)[];
  return Object.fromEntries(names.map((name) => [name, values[name]])) as Partial<OptionValues<S>>;
}
