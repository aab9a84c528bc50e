// What an image was made with, as files of images tell it. Types and their one check; no format.

import { FormatError, quoted } from "../../errors.js";
import { isObject, parsePythonJson } from "../../storage/json.js";
import type { GenerateOptions } from "../generate-options.js";

/** Numbers that are told as `generate` was given them. */
type GivenNumbers = Pick<
  GenerateOptions,
  "steps" | "guidanceScale" | "guidanceRescale" | "clipSkip" | "seed" | "width" | "height" | "strength"
>;

/** What an image was made with; what is not known is left out. */
export interface GenerationSettings extends GivenNumbers {
  prompt: string;
  negativePrompt?: string;
  /** One of `SAMPLER_NAMES`. */
  sampler?: string;
  /** How the steps are spread, where not as the sampler does by itself: "Karras", "Exponential", … */
  scheduleType?: string;
  /** A name, no path of the machine. */
  model?: string;
  adapters?: readonly AdapterSetting[];
  /** Of several images that one seed made at once: how many, and which this is, from 0. */
  batch?: { size: number; position: number };
  /** Where it began from an image: the image's name. */
  startImage?: string;
}

/** An adapter that an image was made with. */
export interface AdapterSetting {
  /** A name, no path of the machine. */
  name: string;
  scale: number;
}

/** Settings that a file holds. */
export interface FoundSettings {
  /** Whose format they were read from. */
  format: "fera" | "a1111" | "comfyui";
  settings: GenerationSettings;
  /** What else was there and has no counterpart here, such as "Hires upscale: 2". */
  others: string[];
}

const TEXTS = ["prompt", "negativePrompt", "sampler", "scheduleType", "model", "startImage"] as const;
const NUMBERS = [
  "steps",
  "guidanceScale",
  "guidanceRescale",
  "clipSkip",
  "seed",
  "width",
  "height",
  "strength",
] as const satisfies (keyof GivenNumbers)[];

/** Settings as JSON, in ASCII. */
export const settingsJson = (settings: GenerationSettings): string => asciiJson(settings);

/**
 * Reads what {@link settingsJson} made.
 *
 * @throws {FormatError} If it is no JSON, or a setting has another type.
 */
export function parseSettingsJson(text: string, source: string): FoundSettings {
  const wrong = (name: string, rule: string, value: unknown) =>
    new FormatError(source, `its setting ${quoted(name)} must be ${rule}; got ${quoted(value)}.`);
  const content = parsedJson(text);
  if (!isObject(content)) throw new FormatError(source, "its settings are no JSON object.");
  const settings: Record<string, unknown> = {};
  const others: string[] = [];
  for (const [name, value] of Object.entries(content)) {
    if (TEXTS.some((known) => known === name)) {
      if (typeof value !== "string") throw wrong(name, "a text", value);
    } else if (NUMBERS.some((known) => known === name)) {
      if (typeof value !== "number") throw wrong(name, "a number", value);
    } else if (name === "adapters") {
      if (!Array.isArray(value) || !value.every(isAdapter)) throw wrong(name, "a list of names and scales", value);
    } else if (name === "batch") {
      if (!isObject(value) || typeof value.size !== "number" || typeof value.position !== "number") {
        throw wrong(name, "a size and a position", value);
      }
    } else {
      others.push(`${name}: ${JSON.stringify(value)}`);
      continue;
    }
    settings[name] = value;
  }
  if (typeof settings.prompt !== "string") throw wrong("prompt", "a text", undefined);
  return { format: "fera", settings: settings as unknown as GenerationSettings, others };
}

const isAdapter = (value: unknown): value is AdapterSetting =>
  isObject(value) && typeof value.name === "string" && typeof value.scale === "number";

/** Undefined where it is none. */
export function parsedJson(text: string): unknown {
  try {
    return parsePythonJson(text);
  } catch {
    return undefined;
  }
}

/** JSON whose strings have no characters but ASCII, as Python writes it: it fits a PNG file's plain text. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A number that a text is, or undefined. */
export function numberIn(text: string): number | undefined {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : undefined;
}
