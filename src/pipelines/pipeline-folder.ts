// What a pipeline's folder in diffusers' layout, or a single-file checkpoint, says about its parts.

import { FormatError } from "../errors.js";
import { openConfig, type SourceOptions } from "../models/pretrained.js";
import { openSingleFile } from "../models/single-file/single-file.js";
import { STABLE_DIFFUSION_1_CONFIG } from "../models/single-file/stable-diffusion-1-config.js";
import { type SchedulerConfig, schedulerConfigIn } from "../schedulers/index.js";
import { parsePythonObject } from "../storage/json.js";
import { listNames } from "../storage/model-folder.js";
import { openStorage, type Storage } from "../storage/storage.js";

/** The JSON files that lie outside the models' own folders, and where the rest is. */
interface PipelineFolder {
  /** From where the models are loaded. */
  source: string;
  /** For a single-file checkpoint: the folder whose configuration it has, where one was given. */
  config?: string;
  /** The folder with the tokenizers' folders in it, where it is another than `source`. */
  tokenizerSource?: string;
  /** `model_index.json`, and the file as messages name it. */
  index: Record<string, unknown>;
  indexFile: string;
  /** `scheduler/scheduler_config.json`. */
  schedulerConfig: SchedulerConfig;
}

const MODEL_INDEX = "model_index.json";
const TOKENIZER = "tokenizer";

/** The classes that each component of a family may have. A scheduler's class is checked where it is made. */
const STABLE_DIFFUSION = {
  unet: ["UNet2DConditionModel"],
  vae: ["AutoencoderKL", "AutoencoderTiny"],
  text_encoder: ["CLIPTextModel"],
  tokenizer: ["CLIPTokenizer", "CLIPTokenizerFast"],
  scheduler: undefined,
};
const CLIP_TOKENIZER = STABLE_DIFFUSION.tokenizer;
const T5_TOKENIZER = ["T5TokenizerFast", "T5Tokenizer"];
const QWEN = ["Qwen3ForCausalLM", "Qwen3Model"];
const QWEN_TOKENIZER = ["Qwen2TokenizerFast", "Qwen2Tokenizer"];
const PIPELINES = {
  StableDiffusionPipeline: STABLE_DIFFUSION,
  StableDiffusionXLPipeline: {
    ...STABLE_DIFFUSION,
    text_encoder_2: ["CLIPTextModelWithProjection"],
    tokenizer_2: CLIP_TOKENIZER,
  },
  StableDiffusion3Pipeline: {
    transformer: ["SD3Transformer2DModel"],
    vae: STABLE_DIFFUSION.vae,
    text_encoder: ["CLIPTextModelWithProjection"],
    tokenizer: CLIP_TOKENIZER,
    text_encoder_2: ["CLIPTextModelWithProjection"],
    tokenizer_2: CLIP_TOKENIZER,
    text_encoder_3: ["T5EncoderModel"],
    tokenizer_3: T5_TOKENIZER,
    scheduler: undefined,
  },
  FluxPipeline: {
    transformer: ["FluxTransformer2DModel"],
    vae: STABLE_DIFFUSION.vae,
    text_encoder: ["CLIPTextModel"],
    tokenizer: CLIP_TOKENIZER,
    text_encoder_2: ["T5EncoderModel"],
    tokenizer_2: T5_TOKENIZER,
    scheduler: undefined,
  },
  Flux2KleinPipeline: {
    transformer: ["Flux2Transformer2DModel"],
    vae: ["AutoencoderKLFlux2"],
    text_encoder: QWEN,
    tokenizer: QWEN_TOKENIZER,
    scheduler: undefined,
  },
  ZImagePipeline: {
    transformer: ["ZImageTransformer2DModel"],
    vae: STABLE_DIFFUSION.vae,
    text_encoder: QWEN,
    tokenizer: QWEN_TOKENIZER,
    scheduler: undefined,
  },
} as const satisfies Record<string, Record<string, readonly string[] | undefined>>;

/** The families that are supported. */
export type PipelineClass = keyof typeof PIPELINES;

/** Parts that a folder may be without. */
const OPTIONAL = new Set(["text_encoder_3", "tokenizer_3"]);

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
  vaeClass: "AutoencoderKL" | "AutoencoderKLFlux2" | "AutoencoderTiny";
  /** The parts that the folder has. */
  components: ReadonlySet<string>;
  /** `scheduler_config.json` under the class that `model_index.json` names. */
  schedulerConfig: SchedulerConfig;
  /** SDXL: whether zeros stand for the text where there is no negative prompt. */
  forceZerosForEmptyPrompt: boolean;
  /** FLUX.2: whether the model was distilled to few steps without guidance. */
  isDistilled: boolean;
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
  const { source, index, indexFile, schedulerConfig, config, tokenizerSource = source } = await open(dir, options);
  const pipelineClass = familyOf(index, indexFile, expected);
  const {
    requires_aesthetics_score: scored = false,
    force_zeros_for_empty_prompt: zeros = true,
    is_distilled: isDistilled = false,
    ...entries
  } = index;
  if (scored !== false) {
    throw new FormatError(indexFile, "requires_aesthetics_score (SDXL's refiner) is not supported; it must be false.");
  }
  if (typeof zeros !== "boolean") {
    throw new FormatError(
      indexFile,
      `force_zeros_for_empty_prompt must be true or false; got ${JSON.stringify(zeros)}.`,
    );
  }
  if (typeof isDistilled !== "boolean") {
    throw new FormatError(indexFile, `is_distilled must be true or false; got ${JSON.stringify(isDistilled)}.`);
  }
  const classes = componentClasses(entries, indexFile, PIPELINES[pipelineClass]);
  return {
    source,
    config,
    tokenizerSource,
    pipelineClass,
    vaeClass: classes.get("vae") as PipelineDescription["vaeClass"],
    components: new Set(classes.keys()),
    schedulerConfig: { ...schedulerConfig, _class_name: classes.get("scheduler") },
    forceZerosForEmptyPrompt: zeros,
    isDistilled,
  };
}

async function open(dir: string, options: SourceOptions): Promise<PipelineFolder> {
  const storage = await openStorage(dir, { ...options, parts: neededComponents });
  return storage.file === undefined ? readFolder(storage, dir) : describeSingleFile(storage, dir, options);
}

/** @param dir - As the caller named it: what the storage is opened by again, unless it is on this machine. */
async function readFolder(storage: Storage, dir: string): Promise<PipelineFolder> {
  const bytes = await storage.read(MODEL_INDEX);
  if (!bytes) {
    const names = await storage.list();
    if (!names) throw new FormatError(storage.nameOf(MODEL_INDEX), "the server has no such file.");
    const hint = names.includes("config.json") ? "It is a single model: name the folder around it. " : "";
    throw new FormatError(
      storage.location,
      `has no model_index.json; it holds ${listNames(names)}. ${hint}Name a pipeline's folder in diffusers' layout.`,
    );
  }
  const indexFile = storage.nameOf(MODEL_INDEX);
  return {
    source: sourceOf(storage, dir),
    index: parsePythonObject(bytes, indexFile),
    indexFile,
    schedulerConfig: await schedulerConfigIn(storage, "scheduler"),
  };
}

const sourceOf = (storage: Storage, dir: string): string => (storage.local ? storage.location : dir);

/** What the file does not hold comes from `config`; a tokenizer may also lie beside the file. */
async function describeSingleFile(storage: Storage, dir: string, options: SourceOptions): Promise<PipelineFolder> {
  const opened = await openSingleFile(storage, storage.file!);
  const { family, flow, source: path } = opened;
  if (options.config !== undefined) {
    const configStorage = await openConfig(options.config, options);
    if (configStorage.file !== undefined) {
      throw new FormatError(options.config, "is a file, but a configuration is a folder.");
    }
    const folder = await readFolder(configStorage, options.config);
    checkMarks(opened.entries, folder.schedulerConfig, path);
    const transformer = [folder.index.transformer].flat()[1];
    if (flow && transformer !== flow.family) {
      throw new FormatError(
        folder.indexFile,
        `is of another family: its transformer is ${JSON.stringify(transformer)}, ${path} holds a ${flow.family}.`,
      );
    }
    return { ...folder, source: dir, config: folder.source, tokenizerSource: folder.source };
  }
  if (flow) {
    const held = [...flow.parts.keys()].join(", ");
    throw new FormatError(
      path,
      `holds of a ${flow.words} pipeline: ${held}. Its tokenizers and scheduler` +
        `${flow.lacks.length > 0 ? `, and its ${flow.lacks.join(", ")},` : ""} are not in the file. Give \`config\` ` +
        "(--model-config on the command line): the folder or hub id of such a pipeline in diffusers' layout, for all that is missing.",
    );
  }
  if (family !== "Stable Diffusion 1.x") {
    throw new FormatError(
      path,
      `is a ${family} checkpoint, whose configuration is not in the file. ` +
        "Give `config`: the folder or hub id of the pipeline that it was made from, in diffusers' layout.",
    );
  }
  const hasTokenizer = async () => {
    for (const name of ["tokenizer.json", "vocab.json"]) if (await storage.exists(`${TOKENIZER}/${name}`)) return true;
    return false;
  };
  if (!(await hasTokenizer())) {
    throw new FormatError(
      path,
      `holds no tokenizer: no single-file checkpoint does. Put a folder "${TOKENIZER}" (vocab.json, merges.txt) beside ` +
        "it, or give `config`: the folder or hub id of a Stable Diffusion 1.x pipeline in diffusers' layout.",
    );
  }
  const { model_index: index, scheduler } = STABLE_DIFFUSION_1_CONFIG;
  checkMarks(opened.entries, scheduler, path);
  return { source: dir, index, indexFile: path, schedulerConfig: scheduler, tokenizerSource: storage.location };
}

/** Tensors without values by which trainers mark what a checkpoint was trained to predict. */
function checkMarks(entries: ReadonlyMap<string, unknown>, scheduler: SchedulerConfig, path: string): void {
  const marks = [
    { name: "v_pred", key: "prediction_type", value: "v_prediction", found: scheduler.prediction_type ?? "epsilon" },
    { name: "ztsnr", key: "rescale_betas_zero_snr", value: true, found: scheduler.rescale_betas_zero_snr ?? false },
  ];
  for (const { name, key, value, found } of marks) {
    if (!entries.has(name) || found === value) continue;
    throw new FormatError(
      path,
      `is marked "${name}": its scheduler needs ${key} ${JSON.stringify(value)}; the configuration says ` +
        `${JSON.stringify(found)}. Give as \`config\` the pipeline that it was made from.`,
    );
  }
}

function familyOf(index: Record<string, unknown>, source: string, expected: PipelineClass | undefined): PipelineClass {
  const name = index._class_name;
  const isKnown = typeof name === "string" && Object.hasOwn(PIPELINES, name);
  if (isKnown && (expected === undefined || name === expected)) return name as PipelineClass;
  const rule =
    expected ??
    Object.keys(PIPELINES)
      .join(", ")
      .replace(/, ([^,]*)$/, " or $1");
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
  const missing = Object.keys(components).filter((name) => !classes.has(name) && !OPTIONAL.has(name));
  if (missing.length > 0) throw new FormatError(source, `names no ${missing.join(", no ")}; text to image needs it.`);
  return classes;
}
