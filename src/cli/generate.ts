// fera generate: samples images, with or without adapters.

import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, extname, resolve } from "node:path";
import { Command } from "commander";
import { samplingConfig } from "../diffusion/index.js";
import { ConfigError, quoted } from "../errors.js";
import { encodePng, readImage, writeImage } from "../images/image-file.js";
import { IMAGE_ENDINGS, type ImageTensor, imageTypeOf } from "../images/image-tensor.js";
import {
  type AnyPipeline,
  describeGeneration,
  FlowPipeline,
  FluxPipeline,
  type GenerationSettings,
  SAMPLER_NAMES,
  schedulerFor,
  withGenerationSettings,
} from "../pipelines/index.js";
import { createScheduler, type Scheduler } from "../schedulers/index.js";
import { writeFileAtomically } from "../storage/file-access.js";
import { adapterName } from "../training/adapter-name.js";
import { type DrawnSize, fitGeneration, memoryBytes } from "../training/index.js";
import { PREDICTION_OPTIONS } from "../training/options/objective-options.js";
import {
  anyText,
  choice,
  integer,
  memorySize,
  number,
  type OptionValues,
  repeated,
  text,
} from "../training/options/option.js";
import { interruptible } from "./interrupt.js";
import { describeMemory } from "./memory-lines.js";
import { EMBEDDING, loadAdapters, loadAnyPipeline, MODEL_HELP, MODEL_OPTIONS } from "./model-options.js";
import { addOptions, readOptions } from "./options.js";
import { prepareOutputFile } from "./output-file.js";
import "./platform.js";
import { print, printError } from "./printable.js";
import { Progress } from "./progress.js";
import { UsageError } from "./usage-error.js";

const OPTIONS = {
  model: text(MODEL_HELP, "MODEL").required(),
  adapter: text("adapter to use: a .safetensors or .pt file, or a folder", "PATH"),
  adapterScale: number("how strongly the adapter acts; 0 is not at all").withDefault(1),
  embedding: EMBEDDING,
  prompt: repeated("what to draw", "PROMPT").required(),
  output: text("the image, a .png, .jpg or .webp; several become NAME-1.png, NAME-2.png, …", "FILE").required(),
  negativePrompt: anyText("what to be guided away from", "PROMPT"),
  image: text(
    "image to start from, scaled and cropped to --width and --height; without them it keeps its size",
    "FILE",
  ),
  strength: number("share of the steps done from --image, up to 1; by default 0.8, SDXL 0.3, newer families 0.6", {
    above: 0,
    max: 1,
  }),
  steps: integer("sampling steps", { min: 1 }).withDefault(25),
  guidanceScale: number(
    "strength of the prompt; 1 and below is without guidance; by default the model's own: 7.5, SDXL 5, FLUX.1 3.5",
  ),
  trueCfgScale: number("FLUX.1: guidance by a second prediction, away from --negative-prompt, above 1", { min: 1 }),
  maxSequenceLength: integer("tokens that T5 or Qwen3 reads of a prompt, up to 512, where the model has one", {
    min: 2,
  }),
  guidanceRescale: number("0 to 1: keeps guidance from making images glaring", { min: 0, max: 1 }).withDefault(0),
  clipSkip: integer("takes the text states this many layers earlier", { min: 0 }).withDefault(0),
  seed: integer("the same seed gives the same images; by default drawn anew", { min: 0 }),
  width: integer("pixels; by default the size of --image, or the model's own", { min: 1 }),
  height: integer("pixels; by default the size of --image, or the model's own", { min: 1 }),
  numImages: integer("images per prompt", { min: 1 }).withDefault(1),
  memoryLimit: memorySize(
    "most of the CPU's memory that the whole process may take, such as 6GB: what each part will take is worked out and " +
      "told before the start, images are decoded in tiles where they must be, and what cannot fit is refused",
  ),
  scheduler: choice("sampler; by default the model's own", SAMPLER_NAMES),
  ...PREDICTION_OPTIONS,
  ...MODEL_OPTIONS,
};

type GenerateCommandOptions = OptionValues<typeof OPTIONS>;

/** The command. */
export function generateCommand(): Command {
  const command = new Command("generate").description("Samples images from a diffusion model.");
  addOptions(command, OPTIONS, { config: true });
  return command.action(async () => {
    const options = await readOptions(command, OPTIONS);
    if (!IMAGE_ENDINGS.includes(extname(options.output).toLowerCase())) {
      const endings = IMAGE_ENDINGS.join(", ");
      throw new UsageError(command, `--output must end in one of ${endings}; got ${quoted(options.output)}.`);
    }
    if (options.strength !== undefined && options.image === undefined) {
      throw new UsageError(command, "--strength needs --image: it is for runs that start from one.");
    }
    await interruptible("Stopping after this step.", (signal) => generate(options, signal));
  });
}

async function generate(options: GenerateCommandOptions, signal: AbortSignal): Promise<void> {
  const { prompt, output, numImages, adapter, steps } = options;
  const paths = outputPaths(output, prompt.length * numImages);
  for (const path of paths) await prepareOutputFile(path);
  const pipeline = await loadAnyPipeline(options.model, options);
  const ofFamily = familyOptions(pipeline, options);
  const { width, height } = options;
  const size = { width, height, multipleOf: pipeline.sizeStep };
  const image = options.image === undefined ? undefined : await readImage(options.image, size);
  if (adapter !== undefined) await loadAdapters(pipeline, adapter);
  for (const file of options.embedding ?? []) await pipeline.loadTextualInversion(file);
  pipeline.setAdapterScale(options.adapterScale);

  if (options.memoryLimit !== undefined) {
    const side = pipeline.defaultSize;
    const [, high = side, wide = side] = image?.shape ?? [];
    const { negativePrompt, guidanceScale } = options;
    const drawn = { prompt, negativePrompt, guidanceScale, numImages, image };
    const given = Object.fromEntries(Object.entries(drawn).filter(([, value]) => value !== undefined)) as typeof drawn;
    const asked = { ...given, width: width ?? wide, height: height ?? high } as DrawnSize;
    const plan = await fitGeneration(pipeline, asked, memoryBytes(options.memoryLimit));
    for (const line of describeMemory(plan)) printError(line);
  }

  const seed = options.seed ?? randomInt(2 ** 32);
  const bar = new Progress({ label: "sampling", total: steps, unit: "steps" });
  const request = {
    prompt,
    negativePrompt: options.negativePrompt,
    image,
    strength: options.strength,
    steps,
    guidanceScale: options.guidanceScale,
    guidanceRescale: options.guidanceRescale,
    clipSkip: options.clipSkip,
    seed,
    width,
    height,
    numImages,
    scheduler: samplerOf(pipeline, options),
    ...ofFamily,
  };
  const { images } = await pipeline
    .generate({
      ...request,
      // Some schedulers visit more timesteps than were asked for; a run from an image visits fewer.
      onStep: ({ step, steps: visited }) => bar.update(Math.floor((step * steps) / visited)),
      signal,
    })
    .finally(() => bar.end());
  for (const [position, path] of paths.entries()) {
    const made = { image: images[position]!, seed, position, count: paths.length };
    await write(path, made.image, { ...describeGeneration(pipeline, request, made), ...namesIn(options) });
    print(`${path}  ${prompt[Math.floor(position / numImages)]}`);
  }
  print(`seed ${seed}`);
}

/** Options that only some families have. @throws {ConfigError} If one is given that this model has not. */
function familyOptions(pipeline: AnyPipeline, { trueCfgScale, maxSequenceLength }: GenerateCommandOptions) {
  const refuse = (name: string, whose: string): never => {
    throw new ConfigError(`${name} is for ${whose}; the model is a ${pipeline.constructor.name}.`);
  };
  if (trueCfgScale !== undefined && !(pipeline instanceof FluxPipeline)) refuse("--true-cfg-scale", "FLUX.1");
  if (maxSequenceLength !== undefined && !(pipeline instanceof FlowPipeline)) {
    refuse("--max-sequence-length", "models that read prompts with T5 or Qwen3");
  }
  return {
    ...(trueCfgScale !== undefined && { trueCfgScale }),
    ...(maxSequenceLength !== undefined && { maxSequenceLength }),
  };
}

/** What files that are given away tell of this machine: names, no folders. */
function namesIn({ model, adapter, adapterScale, image }: GenerateCommandOptions): Partial<GenerationSettings> {
  const name = (path: string): string => basename(resolve(path));
  return {
    // OWNER/NAME of the hub is a name as it is.
    model: existsSync(model) ? name(model) : model,
    ...(adapter !== undefined && { adapters: [{ name: adapterName(adapter), scale: adapterScale }] }),
    ...(image !== undefined && { startImage: name(image) }),
  };
}

/** A PNG file says what it was made with. */
async function write(path: string, image: ImageTensor, settings: GenerationSettings): Promise<void> {
  if (imageTypeOf(path) !== "image/png") return writeImage(path, image);
  await writeFileAtomically(path, [withGenerationSettings(await encodePng(image), settings)]);
}

/** `image.png` alone, or `image-1.png`, `image-2.png`, … */
function outputPaths(output: string, count: number): string[] {
  if (count === 1) return [output];
  const ending = extname(output);
  const stem = output.slice(0, -ending.length);
  const digits = String(count).length;
  return Array.from({ length: count }, (_, i) => `${stem}-${String(i + 1).padStart(digits, "0")}${ending}`);
}

/** The sampler that the options ask for; undefined for the pipeline's own. */
function samplerOf({ schedulerConfig }: AnyPipeline, options: GenerateCommandOptions): Scheduler | undefined {
  const config = samplingConfig(schedulerConfig, options);
  if (options.scheduler) return schedulerFor({ schedulerConfig: config }, options.scheduler);
  return config === schedulerConfig ? undefined : createScheduler(config);
}
