// Loads what the options name that say which model runs, and where.

import { FeRAConfig, type LoadedAdapter } from "../adapters/index.js";
import { ConfigError } from "../errors.js";
import { type AnyPipeline, loadPipeline, type PipelineOptions } from "../pipelines/index.js";
import { MODEL_HELP, MODEL_OPTIONS, RUNTIME_OPTIONS } from "../training/options/model-options.js";
import { type OptionValues, repeated } from "../training/options/option.js";
import { printError } from "./printable.js";
import { Progress } from "./progress.js";

/** Of commands that use what textual inversion learned. */
export const EMBEDDING = repeated(
  "vectors of a token that prompts can then have: learned_embeds.safetensors of diffusers, A1111's .pt or .safetensors",
  "FILE",
);

export { MODEL_HELP, MODEL_OPTIONS, RUNTIME_OPTIONS };

type ModelOptionValues = OptionValues<typeof RUNTIME_OPTIONS> & Partial<OptionValues<typeof MODEL_OPTIONS>>;

/** Loads the pipeline of `--model`, of whichever family. */
export function loadAnyPipeline(model: string, options: ModelOptionValues): Promise<AnyPipeline> {
  return loadPipeline(model, loadingOptions(options));
}

function loadingOptions(options: ModelOptionValues): PipelineOptions {
  const { device, threads, variant, revision, dtype, modelConfig: config } = options;
  return { ...{ device, threads, variant, revision, dtype, config }, ...downloadMessages() };
}

/** What is told while a model or a data set is fetched or converted goes to stderr. */
export function downloadMessages(): Pick<PipelineOptions, "onMessage" | "onProgress"> {
  let progress: Progress | undefined;
  return {
    onMessage: printError,
    onProgress: ({ receivedBytes, totalBytes }) => {
      progress ??= new Progress({ label: "downloading", total: Math.ceil(totalBytes / 1e6), unit: "MB" });
      progress.update(Math.ceil(receivedBytes / 1e6));
      if (receivedBytes >= totalBytes) progress.end();
    },
  };
}

/**
 * Loads adapters into a pipeline, and says on stderr what was assumed where the file has no configuration, and what of it
 * is not used.
 *
 * @throws {FormatError} If the file is damaged or for another model.
 */
export async function loadAdapters(pipeline: AnyPipeline, path: string): Promise<LoadedAdapter> {
  const loaded = await pipeline.loadAdapters(path);
  const { hasConfig, config, notes = [] } = loaded;
  if (!hasConfig && config instanceof FeRAConfig) {
    const { alpha, routerTau, bands } = config;
    printError(
      `${path} holds no configuration: alpha ${alpha}, temperature ${routerTau}, ${bands} bands are assumed. ` +
        "If it was trained with others, give them to fera convert first.",
    );
  }
  for (const note of notes) printError(`${path}: ${note}`);
  return loaded;
}

/**
 * The side of the images in pixels: as asked for, or the model's own.
 *
 * @throws {ConfigError} If it is no multiple of the pixels per latent pixel or token.
 */
export function checkedResolution(
  pipeline: Pick<AnyPipeline, "sizeStep" | "defaultSize">,
  asked: number | undefined,
): number {
  const { sizeStep: scale, defaultSize } = pipeline;
  if (asked === undefined) return defaultSize;
  if (asked % scale === 0) return asked;
  const below = Math.max(scale, Math.floor(asked / scale) * scale);
  throw new ConfigError(
    `--resolution must be a multiple of ${scale}, this model's pixels per latent pixel or token; got ${asked}. ` +
      `Nearest are ${below} and ${below + scale}; the model's own size is ${defaultSize}.`,
  );
}

/**
 * Checks that every bucket can be encoded.
 *
 * @throws {ConfigError} If the step is no multiple of the pixels per latent pixel or token.
 */
export function checkBucketStep({ sizeStep: scale }: Pick<AnyPipeline, "sizeStep">, step: number | undefined): void {
  if (step === undefined || step % scale === 0) return;
  throw new ConfigError(
    `--bucket-step must be a multiple of ${scale}, this model's pixels per latent pixel or token; got ${step}.`,
  );
}
