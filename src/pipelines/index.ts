export { AbortError } from "./abort.js";
export type { GenerationStep, RoutingTrace } from "./denoise.js";
export type { GenerateOptions, GenerateResult } from "./generate-options.js";
export { type PipelineFolder, registerPipelineFolderReader } from "./pipeline-folder.js";
export { type StableDiffusionComponents, StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";
