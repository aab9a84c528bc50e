export type {
  AdaptedPrediction,
  Adapter,
  AdapterConfig,
  AdapterState,
  AttachableAdapter,
  AttachedAdapter,
  AttachInputs,
  StepAdapter,
  WeightFusion,
} from "./adapter.js";
export {
  type AdapterData,
  type AdapterFormat,
  type AdapterPart,
  adapterFormatOf,
  asFeRAAdapter,
  encodeAdapter,
  type LoadedAdapter,
  readAdapter,
  readFeRAAdapter,
  type TextEncoderName,
  type WriteOptions,
  writeAdapter,
  writeLycoris,
} from "./adapter-format.js";
export { AdapterModel, type AdapterModelInputs, type AdapterPrediction } from "./adapter-model.js";
export {
  AdapterStack,
  attachableAdapter,
  graphAdapters,
  type RoutedGates,
  type StackedAdapter,
  type StackPrediction,
} from "./adapter-stack.js";
export { ADAPTER_TYPES, adapterConfigFromJSON, createAdapter } from "./create-adapter.js";
export { DoRAAdapter } from "./dora/dora-adapter.js";
export { DoRAConfig } from "./dora/dora-config.js";
export { type ConsistencyLossInputs, feclLoss, frequencyEnergyConsistencyLoss } from "./fera/consistency-loss.js";
export { addExperts, expandGates, RoutedExperts } from "./fera/experts.js";
export { FeRAAdapter } from "./fera/fera-adapter.js";
export {
  type BandDefinition,
  FeRAConfig,
  type FeRAOptions,
  ROUTER_NAMES,
  type RouterName,
  type SigmaRule,
} from "./fera/fera-config.js";
export { type FeRAInputs, FeRAModel, type Routing } from "./fera/fera-model.js";
export { isFeRAState } from "./fera/fera-state.js";
export { freezeGates } from "./fera/frozen-gates.js";
export {
  evenTimesteps,
  type FreezingError,
  type FreezingErrorAtTimestep,
  freezingError,
  type GatesAtTimestep,
  gatesOverTimesteps,
  meanGates,
  type NoisyLatents,
} from "./fera/gate-statistics.js";
export {
  type BandOptions,
  bandEnergies,
  baseSigma,
  FrequencyEnergyIndicator,
  frequencyBands,
} from "./fera/indicator.js";
export { adapterGates, SoftFrequencyRouter, type SoftFrequencyRouterOptions } from "./fera/soft-frequency-router.js";
export type { PatternValues } from "./layer-pattern.js";
export { LoHaAdapter } from "./loha/loha-adapter.js";
export { LoHaConfig, type LoHaOptions } from "./loha/loha-config.js";
export { LoKrAdapter } from "./lokr/lokr-adapter.js";
export { LoKrConfig, type LoKrOptions } from "./lokr/lokr-config.js";
export { LoRAAdapter } from "./lora/lora-adapter.js";
export { LoRAConfig, type LoRAOptions } from "./lora/lora-config.js";
export { isUNet, type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora/lora-names.js";
export {
  type PlainLoraFormat,
  type PlainLoraOptions,
  plainLoraPathProblem,
  writePlainLora,
} from "./lora/plain-lora.js";
export { isLoadedLora, type LoadedLora } from "./lora/read-lora.js";
export { defaultLoraNames, type LoraFileNames, type LoraFileOptions, writeLora } from "./lora/write-lora.js";
export { LowRankAdapter } from "./low-rank-adapter.js";
export { LowRankConfig, type LowRankOptions } from "./low-rank-config.js";
export { isTLoRAState, TLoRAAdapter } from "./t-lora/t-lora-adapter.js";
export { TLoRAConfig, type TLoRAOptions } from "./t-lora/t-lora-config.js";
export {
  ALL_LINEAR,
  describeTargets,
  type LayerChoice,
  type LayerMatching,
  matchesTarget,
  pathSuffix,
  recordLayers,
  type TargetLayer,
  targetLayers,
} from "./target-layers.js";
export type {
  AccompaniedStepSettings,
  CompiledTrainStep,
  Losses,
  LossesAndGradients,
  MixedPrecision,
  OptimizerStepSettings,
  StepAverage,
  StepLossScale,
  StepOptimizer,
  TrainStepInputs,
  TrainStepOptions,
} from "./train-step-options.js";
