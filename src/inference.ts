// What making images takes, on every platform: models, adapters, pipelines, schedulers. Loads nothing that only training
// needs; node-inference.ts and web-inference.ts add their backend and their storage.

export {
  type AdapterConfig,
  AdapterModel,
  type AdapterModelInputs,
  type AdapterPrediction,
  type CompiledTrainStep,
  FeRAConfig,
  type FeRAInputs,
  FeRAModel,
  type FeRAOptions,
  FrequencyEnergyIndicator,
  freezeGates,
  freezingError,
  frequencyEnergyConsistencyLoss,
  gatesOverTimesteps,
  type LoadedAdapter,
  LoRAConfig,
  type LoRAOptions,
  meanGates,
  readAdapter,
  SoftFrequencyRouter,
  writePlainLora,
} from "./adapters/index.js";
export {
  ConfigError,
  FeraError,
  FormatError,
  GradientError,
  RuntimeError,
  ShapeError,
  TrainingError,
} from "./errors.js";
export { Graph, type Value } from "./graph/index.js";
export * as operators from "./graph/operator-functions.js";
export { ImageTensor, type ImageType, type PixelData, type SaveOptions } from "./images/image-tensor.js";
export type { RgbImage } from "./images/pixels.js";
export {
  AutoencoderKL,
  AutoencoderTiny,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  CLIPTokenizer,
  type ClipHiddenStateOptions,
  type ClipTextStates,
  type LatentDistribution,
  type PretrainedOptions,
  sampleLatents,
  type TilingOptions,
  UNet2DConditionModel,
  type UNetInputs,
} from "./models/index.js";
export {
  type GenerateOptions,
  type GenerateResult,
  type GenerationProgress,
  type GenerationStep,
  type PipelineOptions,
  type RoutingTrace,
  type StableDiffusionComponents,
  StableDiffusionPipeline,
  type StableDiffusionXLComponents,
  type StableDiffusionXLOptions,
  StableDiffusionXLPipeline,
} from "./pipelines/index.js";
export {
  type CompiledGraph,
  type CompileOptions,
  compile,
  DEVICES,
  type Device,
  type DeviceOption,
} from "./runtime/index.js";
export {
  createScheduler,
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  LCMScheduler,
  PNDMScheduler,
  type Scheduler,
  type SchedulerConfig,
  type SchedulerSourceOptions,
  UniPCMultistepScheduler,
} from "./schedulers/index.js";
export type { DownloadProgress, HubOptions } from "./storage/hub/hub-options.js";
export { decodeSafetensors, encodeSafetensors, type NamedTensors, type Safetensors } from "./storage/safetensors.js";
export { decodeTorch, encodeTorch } from "./storage/torch.js";
export { Generator, rand, randint, randn, randperm } from "./tensor/random.js";
export { type DType, Tensor, tensor, zeros } from "./tensor/tensor.js";
