// What every platform offers. The entries index.ts (Node) and web.ts (browser) add their backend and file access.

export { gradients } from "./autodiff/index.js";
export {
  ConfigError,
  FeraError,
  FormatError,
  GradientError,
  RuntimeError,
  ShapeError,
  TrainingError,
} from "./errors.js";
export {
  FeRAConfig,
  type FeRAInputs,
  FeRAModel,
  type FeRAOptions,
  FrequencyEnergyIndicator,
  frequencyEnergyConsistencyLoss,
  SoftFrequencyRouter,
  TrainStep,
} from "./fera/index.js";
export { decodeSafetensors, encodeSafetensors } from "./formats/safetensors.js";
export { decodeTorch, encodeTorch } from "./formats/torch.js";
export * as operators from "./graph/index.js";
export { Graph, type Value } from "./graph/index.js";
export {
  AutoencoderKL,
  AutoencoderTiny,
  CLIPTextModel,
  CLIPTokenizer,
  type PretrainedOptions,
  UNet2DConditionModel,
  type UNetInputs,
} from "./models/index.js";
export { type GenerateOptions, type GenerateResult, StableDiffusionPipeline } from "./pipelines/index.js";
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
  EulerDiscreteScheduler,
  PNDMScheduler,
  type Scheduler,
} from "./schedulers/index.js";
export { Generator, rand, randint, randn, randperm } from "./tensor/random.js";
export { type DType, Tensor, tensor, zeros } from "./tensor/tensor.js";
export { learningRateSchedule } from "./training/learning-rate.js";
export { AdamW, type AdamWOptions } from "./training/optimizers.js";
