// Regular expressions for layers' paths, as PEFT takes them. RE2 matches in time linear in the path, so that no pattern,
// a file's included, can hang.

import { RE2JS } from "re2js";
import { ConfigError, quoted } from "../errors.js";

/** Longer ones are refused before they are compiled. */
const LONGEST_PATTERN = 512;
/** What makes a text a pattern; a dot alone is part of a path. */
const META = /[\\^$*+?()[\]{}|]/;

/** Values by pattern of paths: PEFT's rank_pattern and alpha_pattern. */
export type PatternValues = Readonly<Record<string, number>>;

/**
 * A test of whether a pattern is the whole of a path, as Python's `re.fullmatch`.
 *
 * @param where - Names the option or the file in messages.
 * @throws {ConfigError} If it is no regular expression, or one that cannot be matched in linear time: look-around and
 *   back-references.
 */
export function pathPattern(pattern: string, where: string): (path: string) => boolean {
  const compiled = compile(pattern, pattern, where);
  return (path) => compiled.matches(path);
}

/**
 * The value for a path, as PEFT finds it: of the first pattern that is the path or the end of it behind a dot. A whole
 * path goes before all patterns.
 *
 * @throws {ConfigError} As {@link pathPattern}.
 */
export function patternValue(values: PatternValues, path: string, where: string): number | undefined {
  if (Object.hasOwn(values, path)) return values[path];
  for (const [pattern, value] of Object.entries(values)) if (matchesPattern(path, pattern, where)) return value;
  return undefined;
}

/** Whether a pattern of {@link PatternValues} means a path. @throws {ConfigError} As {@link pathPattern}. */
export function matchesPattern(path: string, pattern: string, where: string): boolean {
  if (!META.test(pattern)) return path === pattern || path.endsWith(`.${pattern}`);
  return compile(pattern, `(?:.*\\.)?(?:${pattern})`, where).matches(path);
}

/** Compiled expressions are kept: a configuration asks for each layer. */
const COMPILED = new Map<string, RE2JS>();
const MOST_COMPILED = 4096;

function compile(pattern: string, expression: string, where: string): RE2JS {
  const known = COMPILED.get(expression);
  if (known) return known;
  const refused = (why: string, cause?: unknown) =>
    new ConfigError(
      `${where}: the pattern of layers ${quoted(pattern)} ${why}. Patterns are regular expressions without ` +
        "look-around and back-references.",
      { cause },
    );
  if (pattern.length > LONGEST_PATTERN) throw refused(`is longer than ${LONGEST_PATTERN} characters`);
  let compiled: RE2JS;
  try {
    compiled = RE2JS.compile(expression);
  } catch (cause) {
    throw refused(`is not supported (${(cause as Error).message})`, cause);
  }
  if (COMPILED.size >= MOST_COMPILED) COMPILED.clear();
  COMPILED.set(expression, compiled);
  return compiled;
}

/** How many names a message lists. */
const NEAR_NAMES = 6;

/** Those of some names that look most like a text, by shared pairs of letters, the nearest first. */
export function nearNames(text: string, names: readonly string[]): string[] {
  const wanted = pairs(text);
  const scored = [...new Set(names)].map((name) => {
    const own = pairs(name);
    const shared = [...own].filter((pair) => wanted.has(pair)).length;
    return { name, score: (2 * shared) / Math.max(1, wanted.size + own.size) };
  });
  scored.sort((a, b) => b.score - a.score);
  return scored.slice(0, NEAR_NAMES).map(({ name }) => name);
}

/** Pairs of neighbouring letters, without what only patterns have. */
function pairs(text: string): Set<string> {
  const plain = text.slice(0, LONGEST_PATTERN).replaceAll(/[^\w.]/g, "");
  return new Set(Array.from({ length: Math.max(0, plain.length - 1) }, (_, i) => plain.slice(i, i + 2)));
}
