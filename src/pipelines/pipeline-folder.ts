// What a pipeline's folder in diffusers' layout says about its parts. How files are read is the platform's business, as
// for models; pipeline-node.ts registers a reader of files.

import { FormatError } from "../errors.js";
import type { SchedulerConfig } from "../schedulers/index.js";

/** The JSON files that lie outside the models' own folders. */
export interface PipelineFolder {
  /** The folder, for messages. */
  source: string;
  /** `model_index.json`. */
  index: Record<string, unknown>;
  /** `scheduler/scheduler_config.json`. */
  schedulerConfig: Record<string, unknown>;
}

type PipelineFolderReader = (dir: string) => Promise<PipelineFolder>;

let reader: PipelineFolderReader | undefined;

/** Called once by the platform's entry point. */
export function registerPipelineFolderReader(next: PipelineFolderReader): void {
  reader = next;
}

const PIPELINES = ["StableDiffusionPipeline"];

/** The classes that each component may have. A scheduler's class is checked where it is made. */
const COMPONENTS = {
  unet: ["UNet2DConditionModel"],
  vae: ["AutoencoderKL", "AutoencoderTiny"],
  text_encoder: ["CLIPTextModel"],
  tokenizer: ["CLIPTokenizer", "CLIPTokenizerFast"],
  scheduler: undefined,
} as const satisfies Record<string, readonly string[] | undefined>;

type Component = keyof typeof COMPONENTS;

/** Parts that text to image does without: the image is the same. */
const IGNORED = new Set(["safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"]);

/** A pipeline's parts, checked. */
export interface PipelineDescription {
  source: string;
  vaeClass: "AutoencoderKL" | "AutoencoderTiny";
  /** `scheduler_config.json` under the class that `model_index.json` names. */
  schedulerConfig: SchedulerConfig;
}

/**
 * Reads `model_index.json` and the scheduler's configuration.
 *
 * @throws {FormatError} If the folder is none, a file is missing or malformed, or a part is of a class that is not
 *   supported; it is named.
 */
export async function describePipeline(dir: string): Promise<PipelineDescription> {
  if (!reader) throw new FormatError(dir, "this platform has registered no reader of pipeline folders.");
  const { source, index, schedulerConfig } = await reader(dir);
  const classes = componentClasses(index, `${source}/model_index.json`);
  return {
    source,
    vaeClass: classes.vae as PipelineDescription["vaeClass"],
    schedulerConfig: { ...schedulerConfig, _class_name: classes.scheduler },
  };
}

function componentClasses(index: Record<string, unknown>, source: string): Record<Component, string> {
  const pipeline = index._class_name;
  if (typeof pipeline !== "string" || !PIPELINES.includes(pipeline)) {
    throw new FormatError(source, `_class_name must be ${PIPELINES.join(" or ")}; got ${JSON.stringify(pipeline)}.`);
  }
  const classes: Partial<Record<Component, string>> = {};
  for (const [name, entry] of Object.entries(index)) {
    if (name.startsWith("_") || IGNORED.has(name)) continue;
    const className = Array.isArray(entry) ? entry[1] : entry;
    if (className === null) continue; // a part that this pipeline goes without
    if (!Object.hasOwn(COMPONENTS, name)) {
      throw new FormatError(source, `the component "${name}" (${JSON.stringify(className)}) is not supported.`);
    }
    const supported: readonly string[] | undefined = COMPONENTS[name as Component];
    if (typeof className !== "string" || (supported && !supported.includes(className))) {
      const rule = supported ? `must be a ${supported.join(" or ")}` : "must name a class";
      throw new FormatError(source, `${name} ${rule}; got ${JSON.stringify(className)}.`);
    }
    classes[name as Component] = className;
  }
  const missing = (Object.keys(COMPONENTS) as Component[]).filter((name) => classes[name] === undefined);
  if (missing.length > 0) throw new FormatError(source, `names no ${missing.join(", no ")}; text to image needs it.`);
  return classes as Record<Component, string>;
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
