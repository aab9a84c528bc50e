export type { AdapterChoice, AdapterSelection, PromptAdapters } from "./adapter-set.js";
export type { GenerationStep, RoutingTrace } from "./denoise.js";
export type { PromptReader } from "./diffusion-pipeline.js";
export { FlowPipeline } from "./flow-pipeline.js";
export { type FluxComponents, type FluxOptions, FluxPipeline, type FluxTexts } from "./flux/flux-pipeline.js";
export {
  type Flux2KleinComponents,
  type Flux2KleinOptions,
  Flux2KleinPipeline,
} from "./flux2-klein/flux2-klein-pipeline.js";
export type { GenerateOptions, GenerateResult, GenerationProgress } from "./generate-options.js";
export {
  type AdapterSetting,
  describeGeneration,
  type FoundSettings,
  type GenerationSettings,
  readGenerationSettings,
  SAMPLER_NAMES,
  type SamplerName,
  withGenerationSettings,
} from "./generation-settings/index.js";
export {
  type AnyFlowPipeline,
  type AnyPipeline,
  AutoPipelineForText2Image,
  loadPipeline,
  type UNetPipeline,
} from "./load-pipeline.js";
export { schedulerFor } from "./samplers.js";
export type { PipelineOptions } from "./stable-diffusion/load-components.js";
export {
  type StableDiffusionComponents,
  StableDiffusionPipeline,
} from "./stable-diffusion/stable-diffusion-pipeline.js";
export {
  type PixelPair,
  type StableDiffusionXLComponents,
  type StableDiffusionXLOptions,
  StableDiffusionXLPipeline,
  type XLPromptStates,
} from "./stable-diffusion/stable-diffusion-xl-pipeline.js";
export {
  type StableDiffusion3Components,
  type StableDiffusion3Options,
  StableDiffusion3Pipeline,
  type StableDiffusion3Texts,
} from "./stable-diffusion-3/stable-diffusion-3-pipeline.js";
export { readTokenEmbedding, type TokenEmbedding, writeTokenEmbedding } from "./token-embedding.js";
export { type ZImageComponents, type ZImageOptions, ZImagePipeline } from "./z-image/z-image-pipeline.js";
