// What a pipeline's folder in diffusers' layout says about its parts. How files are read is the platform's business, as
// for models; pipeline-node.ts registers a reader of files.

import { FormatError } from "../errors.js";
import type { SourceOptions } from "../models/pretrained.js";
import type { SchedulerConfig } from "../schedulers/index.js";

/** The JSON files that lie outside the models' own folders, and where the rest is. */
export interface PipelineFolder {
  /** The local folder, or single-file checkpoint, from which the models are loaded. */
  source: string;
  /** For a single-file checkpoint: the folder whose configuration it has, where one was given. */
  config?: string;
  /** The folder with the tokenizers' folders in it, where it is another than `source`. */
  tokenizerSource?: string;
  /** `model_index.json`. */
  index: Record<string, unknown>;
  /** `scheduler/scheduler_config.json`. */
  schedulerConfig: Record<string, unknown>;
}

type PipelineFolderReader = (dir: string, options: SourceOptions) => Promise<PipelineFolder>;

let reader: PipelineFolderReader | undefined;

/** Called once by the platform's entry point. */
export function registerPipelineFolderReader(next: PipelineFolderReader): void {
  reader = next;
}

/** The classes that each component of a family may have. A scheduler's class is checked where it is made. */
const STABLE_DIFFUSION = {
  unet: ["UNet2DConditionModel"],
  vae: ["AutoencoderKL", "AutoencoderTiny"],
  text_encoder: ["CLIPTextModel"],
  tokenizer: ["CLIPTokenizer", "CLIPTokenizerFast"],
  scheduler: undefined,
};
const PIPELINES = {
  StableDiffusionPipeline: STABLE_DIFFUSION,
  StableDiffusionXLPipeline: {
    ...STABLE_DIFFUSION,
    text_encoder_2: ["CLIPTextModelWithProjection"],
    tokenizer_2: STABLE_DIFFUSION.tokenizer,
  },
} as const satisfies Record<string, Record<string, readonly string[] | undefined>>;

/** The families that are supported. */
export type PipelineClass = keyof typeof PIPELINES;

/** Parts that text to image does without: the image is the same. */
const IGNORED = new Set([
  "safety_checker",
  "feature_extractor",
  "image_encoder",
  "requires_safety_checker",
  "add_watermarker",
]);

/** The folders that a pipeline needs, by its `model_index.json`: all parts that it has, less those that are ignored. */
export function neededComponents(index: Record<string, unknown>): string[] {
  return Object.keys(index).filter((name) => {
    const entry = index[name];
    return !name.startsWith("_") && !IGNORED.has(name) && Array.isArray(entry) && entry[1] !== null;
  });
}

/** A pipeline's parts, checked. */
export interface PipelineDescription {
  /** From where the models are loaded: the folder itself, or what a hub id stands for on this machine. */
  source: string;
  /** Goes with `source` as the option of that name. */
  config: string | undefined;
  tokenizerSource: string;
  pipelineClass: PipelineClass;
  vaeClass: "AutoencoderKL" | "AutoencoderTiny";
  /** `scheduler_config.json` under the class that `model_index.json` names. */
  schedulerConfig: SchedulerConfig;
  /** SDXL: whether zeros stand for the text where there is no negative prompt. */
  forceZerosForEmptyPrompt: boolean;
}

/**
 * Reads `model_index.json` and the scheduler's configuration.
 *
 * @param dir - A folder in diffusers' layout, a single-file checkpoint, or where there is no such folder, a hub id.
 * @param expected - The family that it must be; by default any.
 * @throws {FormatError} If the folder is none, a file is missing or malformed, or a part is of a class that is not
 *   supported; it is named.
 */
export async function describePipeline(
  dir: string,
  expected?: PipelineClass,
  options: SourceOptions = {},
): Promise<PipelineDescription> {
  if (!reader) throw new FormatError(dir, "this platform has registered no reader of pipeline folders.");
  const { source, index, schedulerConfig, config, tokenizerSource = source } = await reader(dir, options);
  const indexFile = `${source}/model_index.json`;
  const pipelineClass = familyOf(index, indexFile, expected);
  const { requires_aesthetics_score: scored = false, force_zeros_for_empty_prompt: zeros = true, ...entries } = index;
  if (scored !== false) {
    throw new FormatError(indexFile, "requires_aesthetics_score (SDXL's refiner) is not supported; it must be false.");
  }
  if (typeof zeros !== "boolean") {
    throw new FormatError(
      indexFile,
      `force_zeros_for_empty_prompt must be true or false; got ${JSON.stringify(zeros)}.`,
    );
  }
  const classes = componentClasses(entries, indexFile, PIPELINES[pipelineClass]);
  return {
    source,
    config,
    tokenizerSource,
    pipelineClass,
    vaeClass: classes.get("vae") as PipelineDescription["vaeClass"],
    schedulerConfig: { ...schedulerConfig, _class_name: classes.get("scheduler") },
    forceZerosForEmptyPrompt: zeros,
  };
}

function familyOf(index: Record<string, unknown>, source: string, expected: PipelineClass | undefined): PipelineClass {
  const name = index._class_name;
  const isKnown = typeof name === "string" && Object.hasOwn(PIPELINES, name);
  if (isKnown && (expected === undefined || name === expected)) return name as PipelineClass;
  const rule = expected ?? Object.keys(PIPELINES).join(" or ");
  const advice = isKnown ? ` Load it with ${name}.fromPretrained.` : "";
  throw new FormatError(source, `_class_name must be ${rule}; got ${JSON.stringify(name)}.${advice}`);
}

/** The class of each of the family's components. */
function componentClasses(
  index: Record<string, unknown>,
  source: string,
  components: Readonly<Record<string, readonly string[] | undefined>>,
): Map<string, string> {
  const classes = new Map<string, string>();
  for (const [name, entry] of Object.entries(index)) {
    if (name.startsWith("_") || IGNORED.has(name)) continue;
    const className = Array.isArray(entry) ? entry[1] : entry;
    if (className === null) continue; // a part that this pipeline goes without
    if (!Object.hasOwn(components, name)) {
      throw new FormatError(source, `the component "${name}" (${JSON.stringify(className)}) is not supported.`);
    }
    const supported = components[name];
    if (typeof className !== "string" || (supported && !supported.includes(className))) {
      const rule = supported ? `must be a ${supported.join(" or ")}` : "must name a class";
      throw new FormatError(source, `${name} ${rule}; got ${JSON.stringify(className)}.`);
    }
    classes.set(name, className);
  }
  const missing = Object.keys(components).filter((name) => !classes.has(name));
  if (missing.length > 0) throw new FormatError(source, `names no ${missing.join(", no ")}; text to image needs it.`);
  return classes;
}

/**
 * JSON as Python writes it: Infinity, -Infinity and NaN may stand bare. NaN becomes null.
 *
 * @throws {SyntaxError} If it is no JSON otherwise.
 */
export function parsePythonJson(text: string): unknown {
  // Strings are matched first, so that words inside them stay as they are; 1e999 overflows to Infinity.
  return JSON.parse(
    text.replace(/"(?:[^"\\]|\\.)*"|Infinity|NaN/g, (token) =>
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
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new FormatError(source, "must hold a JSON object.");
}
