// JSON objects from files: strictly, as a header of tensors must be, and as Python writes configurations.

import { FormatError } from "../errors.js";

/** Whether a JSON value is an object, neither null nor an array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Parses a header.
 *
 * @param source - Names the file in messages.
 * @throws {FormatError} If it is no JSON object, not UTF-8, or an object in it has two equal keys.
 */
export function parseJsonObject(bytes: Uint8Array, source: string): Record<string, unknown> {
  if (bytes[0] !== 0x7b) throw new FormatError(source, 'the header must begin with "{".');
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(source, `the header is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  checkDuplicateKeys(text, source);
  return value as Record<string, unknown>;
}

/** JSON.parse keeps the last of two equal keys in silence; this walks valid JSON again and refuses them. */
function checkDuplicateKeys(text: string, source: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{") open.push(new Set());
    else if (character === "[") open.push(undefined);
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const begin = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      const keys = open.at(-1);
      if (!keys || !isColonNext(text, i + 1)) continue;
      const name = JSON.parse(text.slice(begin, i + 1)) as string;
      if (keys.has(name)) throw new FormatError(source, `the header names ${quote(name)} twice.`);
      keys.add(name);
    }
  }
}

function isColonNext(text: string, index: number): boolean {
  while (" \t\n\r".includes(text[index] ?? "x")) index++;
  return text[index] === ":";
}

/**
 * Parses a JSON file.
 *
 * @throws {FormatError} If it is not UTF-8 or not JSON.
 */
export function parseJson(bytes: Uint8Array, source: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError(source, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
}

/** What a text holds as JSON; undefined where it is none. */
export function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A key as messages show it: quoted, and cut where it is long. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

/**
 * JSON as Python writes it: Infinity, -Infinity and NaN may stand bare. NaN becomes null.
 *
 * @throws {SyntaxError} If it is no JSON otherwise.
 */
export function parsePythonJson(text: string): unknown {
  // Strings are matched first, so that words inside them stay as they are; one that never ends is matched to the end, or
  // every quote in it would be tried. 1e999 overflows to Infinity.
  return JSON.parse(
    text.replace(/"(?:[^"\\]|\\[\s\S])*(?:"|$)|Infinity|NaN/g, (token) =>
      token === "Infinity" ? "1e999" : token === "NaN" ? "null" : token,
    ),
  );
}

/**
 * The object that a file of such JSON holds.
 *
 * @param source - Names the file in errors.
 * @throws {FormatError} If it is not UTF-8, no JSON, or holds anything but an object.
 */
export function parsePythonObject(bytes: Uint8Array, source: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parsePythonJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError(source, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  if (isObject(value)) return value;
  throw new FormatError(source, "must hold a JSON object.");
}
