// Settings as the JSON file that `fera train --config` reads, and run.json, which is one.

import type { OptionDescription, TrainSettings } from "../../../../src/studio/protocol.js";

/** Larger ones are no settings. */
export const MAX_FILE_BYTES = 1_000_000;

/** What a file gave. */
export interface ReadSettings {
  settings: TrainSettings;
  /** What the form does not have: where the run lies, how it is resumed, or misspelt. */
  leftOut: string[];
}

/** As text. */
export const writeSettings = (settings: TrainSettings): string => `${JSON.stringify(settings, undefined, 2)}\n`;

/**
 * Settings out of a file's text.
 *
 * @throws {Error} If it is no JSON object.
 */
export function readSettings(text: string, options: readonly OptionDescription[]): ReadSettings {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new Error(
      `The file is no JSON: ${(cause as Error).message}. It must hold an object such as {"steps": 500}.`,
      {
        cause,
      },
    );
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new Error('The file must hold a JSON object of options, such as {"steps": 500, "rank": 8}.');
  }
  return takeSettings(content as TrainSettings, options);
}

/** Those settings that the form has. */
export function takeSettings(given: TrainSettings, options: readonly OptionDescription[]): ReadSettings {
  const known = new Set(options.map(({ name }) => name));
  const entries = Object.entries(given).filter(
    ([name, value]) => value !== null && name !== VERSION && !(PLACES.has(name) && value === false),
  );
  const settings = Object.fromEntries(entries.filter(([name]) => known.has(name)));
  // A single place of data may stand alone.
  if (typeof settings.data === "string") settings.data = [settings.data];
  return { settings, leftOut: entries.map(([name]) => name).filter((name) => !known.has(name)) };
}

/** Where a run lies and what it may read, which the form does not say: off they are as if they were not there. */
export const PLACES: ReadonlySet<string> = new Set([
  ...["output", "resume", "overwrite", "cacheDir", "skippedList", "followLinks"],
]);

/** In run.json: which version of the library wrote it. */
const VERSION = "fera";
