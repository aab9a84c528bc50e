export { type DescribedPipeline, describeGeneration } from "./describe-generation.js";
export { readGenerationSettings, withGenerationSettings } from "./png-settings.js";
export { SAMPLER_NAMES, type SamplerName, samplerOf, scheduleTypeOf } from "./sampler-names.js";
export type { AdapterSetting, FoundSettings, GenerationSettings } from "./settings.js";
