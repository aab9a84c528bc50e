// Loads a pipeline of whichever family a folder holds.

import { FluxPipeline } from "./flux/flux-pipeline.js";
import { Flux2KleinPipeline } from "./flux2-klein/flux2-klein-pipeline.js";
import { describePipeline } from "./pipeline-folder.js";
import type { PipelineOptions } from "./stable-diffusion/load-components.js";
import { StableDiffusionPipeline } from "./stable-diffusion/stable-diffusion-pipeline.js";
import { StableDiffusionXLPipeline } from "./stable-diffusion/stable-diffusion-xl-pipeline.js";
import { StableDiffusion3Pipeline } from "./stable-diffusion-3/stable-diffusion-3-pipeline.js";
import { ZImagePipeline } from "./z-image/z-image-pipeline.js";

/** The families, by the names of their classes. */
const FAMILIES = {
  StableDiffusionPipeline,
  StableDiffusionXLPipeline,
  StableDiffusion3Pipeline,
  FluxPipeline,
  Flux2KleinPipeline,
  ZImagePipeline,
};

/** A pipeline of a family whose denoiser is a UNet. */
export type UNetPipeline = StableDiffusionPipeline | StableDiffusionXLPipeline;

/** A pipeline of a family whose denoiser is a transformer under flow matching. */
export type AnyFlowPipeline = StableDiffusion3Pipeline | FluxPipeline | Flux2KleinPipeline | ZImagePipeline;

/** A pipeline of one of the supported families. */
export type AnyPipeline = UNetPipeline | AnyFlowPipeline;

/**
 * Loads the class that `model_index.json` names.
 *
 * @param dir - The folder with `model_index.json`, a single-file checkpoint, or an id on the hub (owner/name).
 * @throws {FormatError} If the class is not supported, or a file or part is missing, malformed or not supported.
 * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
 */
export async function loadPipeline(dir: string, options: PipelineOptions = {}): Promise<AnyPipeline> {
  const { pipelineClass, source, config } = await describePipeline(dir, undefined, options);
  return FAMILIES[pipelineClass].fromPretrained(source, { ...options, config });
}

/** Loads the class that `model_index.json` names, under diffusers' name for it. */
export const AutoPipelineForText2Image = { fromPretrained: loadPipeline } as const;
