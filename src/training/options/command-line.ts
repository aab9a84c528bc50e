// Options as they are typed. Pure.

import { kebabCase, type OptionSpecs } from "./option.js";

/** Arguments as they can be typed into a POSIX shell. */
export function shellCommand(words: readonly string[]): string {
  return words.map((word) => (/^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}

/** The flags for values, those that have their defaults left out. */
export function flagWords(specs: OptionSpecs, values: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(specs).flatMap(([name, spec]) => {
    const value = values[name];
    if (value === undefined || JSON.stringify(value) === JSON.stringify(spec.defaultValue)) return [];
    const flag = `--${kebabCase(name)}`;
    if (spec.syntax.placeholder === undefined) return value === true ? [flag] : [];
    if (Array.isArray(value))
      return spec.syntax.repeatable ? value.flatMap((one) => [flag, String(one)]) : [flag, value.join(",")];
    return [flag, String(value)];
  });
}
