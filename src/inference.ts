// What making images takes, on every platform, room by room: models, adapters, pipelines, schedulers. Loads nothing that
// only training needs; node-inference.ts and web-inference.ts add their backend and their storage. Types that public
// signatures name are exported, too.

/// <reference lib="esnext.disposable" preserve="true" />

// Errors

export {
  ConfigError,
  FeraError,
  FormatError,
  GradientError,
  RuntimeError,
  ShapeError,
  TrainingError,
} from "./errors.js";

// Tensors, and torch's random streams

export { Generator, type RandomOptions, rand, randint, randn, randperm } from "./tensor/random.js";
export { type DataOf, type DType, Tensor, type TensorData, tensor, zeros } from "./tensor/tensor.js";

// Graphs, and what runs them

export {
  type AttentionAttributes,
  type Attributes,
  type ConvolutionAttributes,
  type FileRange,
  Graph,
  type Node,
  type OperatorName,
  type OutputType,
  type RotaryAttributes,
  type RotaryPairs,
  type Value,
  type ValueSource,
} from "./graph/index.js";
export * as operators from "./graph/operator-functions.js";
export {
  type CompiledGraph,
  type CompileOptions,
  compile,
  DEVICES,
  type Device,
  type DeviceOption,
  type DeviceResident,
  type IoBinding,
  type Precision,
  type RuntimeOptions,
  supportsIoBinding,
  type TensorType,
} from "./runtime/index.js";

// Bytes of tensors, and downloads

export type { DownloadProgress, HubOptions } from "./storage/hub/hub-options.js";
export { decodeSafetensors, encodeSafetensors, type NamedTensors, type Safetensors } from "./storage/safetensors.js";
export { decodeTorch, encodeTorch } from "./storage/torch.js";

// Images

export {
  type ImageLibraries,
  ImageTensor,
  type ImageType,
  type PixelData,
  type SaveOptions,
} from "./images/image-tensor.js";
export type { ImageLike, RgbImage } from "./images/pixels.js";

// Layers and models

export {
  type AddedTokenValues,
  type Autoencoder,
  AutoencoderKL,
  AutoencoderKLFlux2,
  AutoencoderTiny,
  type CLIPTextConfig,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  CLIPTokenizer,
  type ClipBatch,
  type ClipEncoding,
  type ClipHiddenStateOptions,
  type ClipInputOptions,
  type ClipTextStates,
  type ClipTextValues,
  type ClipTokenizerFiles,
  Flux2Transformer2DModel,
  type Flux2TransformerConfig,
  FluxTransformer2DModel,
  type FluxTransformerConfig,
  type LatentDistribution,
  type LatentScaling,
  type Piece,
  type PretrainedOptions,
  type Qwen3Config,
  Qwen3Model,
  QwenTokenizer,
  type QwenTokenizerFiles,
  SD3Transformer2DModel,
  type SD3TransformerConfig,
  sampleLatents,
  scaledLatents,
  type T5Config,
  T5EncoderModel,
  T5Tokenizer,
  type T5TokenizerFiles,
  type Tiling,
  type TilingDirection,
  type TilingOptions,
  type Tilings,
  type TokenEncoding,
  type TransformerDenoiser,
  type UNet2DConditionConfig,
  UNet2DConditionModel,
  type UNetBlock,
  type UNetInputs,
  unscaledLatents,
  type WeightType,
  ZImageTransformer2DModel,
  type ZImageTransformerConfig,
} from "./models/index.js";
export type {
  AdaptableLayer,
  GraphAdapters,
  Initializer,
  LayerAdapters,
  ModelWeights,
  ParameterSource,
  Scope,
  Weight,
} from "./nn/index.js";

// Noise schedules and samplers

export {
  createScheduler,
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  type FlowMatchingConfig,
  LCMScheduler,
  PNDMScheduler,
  type PredictionType,
  type RunOptions,
  type Scheduler,
  type SchedulerConfig,
  type SchedulerSourceOptions,
  type StepOptions,
  type StepOutput,
  UniPCMultistepScheduler,
} from "./schedulers/index.js";

// What a denoiser is

export type { Conditioning, ConditioningInputs, Denoiser, DenoiserInputs, DenoiserShape } from "./diffusion/index.js";

// Adapters

export {
  type AccompaniedStepSettings,
  ADAPTER_TYPES,
  type AdaptedPrediction,
  type Adapter,
  type AdapterConfig,
  type AdapterData,
  AdapterModel,
  type AdapterModelInputs,
  type AdapterPart,
  type AdapterPrediction,
  type AttachableAdapter,
  type AttachedAdapter,
  type AttachInputs,
  type BandDefinition,
  type BandOptions,
  type CompiledTrainStep,
  type ConsistencyLossInputs,
  DoRAConfig,
  encodeAdapter,
  FeRAConfig,
  type FeRAInputs,
  FeRAModel,
  type FeRAOptions,
  type FreezingError,
  type FreezingErrorAtTimestep,
  FrequencyEnergyIndicator,
  freezeGates,
  freezingError,
  frequencyEnergyConsistencyLoss,
  type GatesAtTimestep,
  gatesOverTimesteps,
  type KohyaNaming,
  type LayerChoice,
  type LayerMatching,
  type LoadedAdapter,
  LoHaConfig,
  type LoHaOptions,
  LoKrConfig,
  type LoKrOptions,
  LoRAConfig,
  type LoRAOptions,
  type Losses,
  type LossesAndGradients,
  type LowRankOptions,
  type MixedPrecision,
  meanGates,
  type NoisyLatents,
  type OptimizerStepSettings,
  type PatternValues,
  type PlainLoraFormat,
  type PlainLoraOptions,
  ROUTER_NAMES,
  type RoutedGates,
  type RouterName,
  type Routing,
  readAdapter,
  type SigmaRule,
  SoftFrequencyRouter,
  type SoftFrequencyRouterOptions,
  type StackPrediction,
  type StepAverage,
  type StepLossScale,
  type StepOptimizer,
  type TargetLayer,
  type TextEncoderName,
  TLoRAConfig,
  type TLoRAOptions,
  type TrainStepInputs,
  type TrainStepOptions,
  type WeightFusion,
  type WriteOptions,
  writeAdapter,
  writePlainLora,
} from "./adapters/index.js";

// Pipelines

export {
  type AdapterChoice,
  type AdapterSelection,
  type AdapterSetting,
  type AnyFlowPipeline,
  type AnyPipeline,
  AutoPipelineForText2Image,
  FlowPipeline,
  type Flux2KleinComponents,
  type Flux2KleinOptions,
  Flux2KleinPipeline,
  type FluxComponents,
  type FluxOptions,
  FluxPipeline,
  type FluxTexts,
  type FoundSettings,
  type GenerateOptions,
  type GenerateResult,
  type GenerationProgress,
  type GenerationSettings,
  type GenerationStep,
  type PipelineOptions,
  type PixelPair,
  type PromptReader,
  type RoutingTrace,
  readGenerationSettings,
  readTokenEmbedding,
  type StableDiffusion3Components,
  type StableDiffusion3Options,
  StableDiffusion3Pipeline,
  type StableDiffusion3Texts,
  type StableDiffusionComponents,
  StableDiffusionPipeline,
  type StableDiffusionXLComponents,
  type StableDiffusionXLOptions,
  StableDiffusionXLPipeline,
  type TokenEmbedding,
  type UNetPipeline,
  withGenerationSettings,
  writeTokenEmbedding,
  type XLPromptStates,
  type ZImageComponents,
  type ZImageOptions,
  ZImagePipeline,
} from "./pipelines/index.js";
