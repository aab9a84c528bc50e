// The options that say which model runs, and where.

import { ConfigError } from "../errors.js";
import { readAdapter } from "../fera/index.js";
import { StableDiffusionPipeline } from "../pipelines/index.js";
import { DEVICES } from "../runtime/index.js";
import { choice, integer, type OptionValues } from "./option-specs.js";

/** Devices of ONNX Runtime in Node; `wasm` is the browser's. */
const NODE_DEVICES = ["auto", ...DEVICES.filter((device) => device !== "wasm")] as const;

export const RUNTIME_OPTIONS = {
  device: choice("where the model runs", NODE_DEVICES).withDefault("cpu"),
  threads: integer("threads of the CPU; by default all", { min: 1 }),
};

export const MODEL_HELP = "folder of a pipeline in diffusers' layout";

/** Loads the pipeline of `--model`. */
export function loadPipeline(
  model: string,
  { device, threads }: OptionValues<typeof RUNTIME_OPTIONS>,
): Promise<StableDiffusionPipeline> {
  return StableDiffusionPipeline.fromPretrained(model, { device, threads });
}

/**
 * Loads adapters into a pipeline, and says on stderr what was assumed where the file has no configuration.
 *
 * @throws {FormatError} If the file is damaged or for another model.
 */
export async function loadAdapters(pipeline: StableDiffusionPipeline, path: string): Promise<void> {
  const { hasConfig, config } = await readAdapter(path);
  if (!hasConfig) {
    const { alpha, routerTau, bands } = config;
    process.stderr.write(
      `${path} holds no configuration: alpha ${alpha}, temperature ${routerTau}, ${bands} bands are assumed. ` +
        "If it was trained with others, give them to fera convert first.\n",
    );
  }
  await pipeline.loadAdapters(path);
}

/**
 * The side of the images in pixels: as asked for, or the model's own.
 *
 * @throws {ConfigError} If it is no multiple of the pixels per latent pixel.
 */
export function checkedResolution(pipeline: StableDiffusionPipeline, asked: number | undefined): number {
  const { latentScale: scale, defaultSize } = pipeline;
  if (asked === undefined) return defaultSize;
  if (asked % scale === 0) return asked;
  const below = Math.max(scale, Math.floor(asked / scale) * scale);
  throw new ConfigError(
    `--resolution must be a multiple of ${scale}, this model's pixels per latent pixel; got ${asked}. ` +
      `Nearest are ${below} and ${below + scale}; the model's own size is ${defaultSize}.`,
  );
}
