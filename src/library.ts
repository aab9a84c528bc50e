// What every platform offers. The entries index.ts (Node) and web.ts (browser) add their backend and their storage.

export {
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
  meanGates,
  readAdapter,
  SoftFrequencyRouter,
  writePlainLora,
} from "./adapters/index.js";
export { gradients } from "./autodiff/index.js";
export { createObjective, type Objective } from "./diffusion/index.js";
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
  type PipelineOptions,
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
export { ParameterAverage } from "./training/average.js";
export { learningRateSchedule } from "./training/learning-rate.js";
export { AdamW, type AdamWOptions } from "./training/optimizers/adamw.js";
export { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./training/optimizers/create-optimizer.js";
export { Lion, type LionOptions } from "./training/optimizers/lion.js";
export type { Optimizer } from "./training/optimizers/optimizer.js";

// What the signatures above mention.

export type { AdaptedPrediction } from "./adapters/adapter.js";
export type { AdapterPart, TextEncoderName } from "./adapters/adapter-format.js";
export type {
  AdapterModel,
  AdapterModelInputs,
  AdapterPrediction,
  AttachableAdapter,
} from "./adapters/adapter-model.js";
export type { RoutedGates, StackPrediction } from "./adapters/adapter-stack.js";
export type {
  Adapter,
  AdapterConfig,
  AttachedAdapter,
  AttachInputs,
  BandDefinition,
  ConsistencyLossInputs,
  FreezingError,
  FreezingErrorAtTimestep,
  GatesAtTimestep,
  KohyaNaming,
  LoadedAdapter,
  NoisyLatents,
  PlainLoraFormat,
  PlainLoraOptions,
  Routing,
  SigmaRule,
  SoftFrequencyRouterOptions,
} from "./adapters/index.js";
export type { LayerMatching, TargetLayer } from "./adapters/target-layers.js";
export type {
  Losses,
  LossesAndGradients,
  StepAverage,
  StepOptimizer,
  TrainStepInputs,
  TrainStepOptions,
} from "./adapters/train-step-options.js";
export type { GradientOptions } from "./autodiff/gradients.js";
export type { Conditioning, ConditioningInputs } from "./diffusion/conditioning.js";
export type { Denoiser, DenoiserInputs, DenoiserShape } from "./diffusion/denoiser.js";
export type { FileRange, Node as GraphNode, OutputType, ValueSource } from "./graph/graph.js";
export type {
  AttentionAttributes,
  Attributes as OperatorAttributes,
  ConvolutionAttributes,
  OperatorName,
} from "./graph/operators.js";
export type { ImageLike } from "./images/pixels.js";
export type { CLIPTextConfig } from "./models/clip-text/clip-text-model.js";
export type { ClipBatch, ClipEncoding } from "./models/clip-tokenizer/clip-tokenizer.js";
export type { ClipTokenizerFiles } from "./models/clip-tokenizer/clip-tokenizer-description.js";
export type { UNet2DConditionConfig, UNetBlock } from "./models/unet-2d-condition/unet-config.js";
export type { ModelWeights, Weight } from "./nn/parameters.js";
export type { AdaptableLayer, GraphAdapters, Initializer, LayerAdapters, ParameterSource, Scope } from "./nn/scope.js";
export type { AdapterSelection } from "./pipelines/adapter-set.js";
export type { GenerationStep, GuidedConditioning, RoutingTrace } from "./pipelines/denoise.js";
export type { GenerationProgress } from "./pipelines/generate-options.js";
export type { GenerationPlan } from "./pipelines/generation-plan.js";
export type { AnyPipeline } from "./pipelines/load-pipeline.js";
export type { PixelPair, XLPromptStates } from "./pipelines/stable-diffusion/stable-diffusion-xl-pipeline.js";
export type { IoBinding } from "./runtime/backend.js";
export type { RuntimeOptions, TensorType } from "./runtime/compile.js";
export type { DeviceResident } from "./runtime/device-resident.js";
export type { PredictionType, StepOptions, StepOutput } from "./schedulers/scheduler.js";
export type { StepCursor } from "./schedulers/step-cursor.js";
export type { Wanted } from "./storage/hub/needed-files.js";
export type { RandomOptions } from "./tensor/random.js";
export type { DataOf } from "./tensor/tensor.js";
export type { LearningRateOptions } from "./training/learning-rate.js";
export type { GraphStep, StateSlot } from "./training/optimizers/optimizer.js";
