export { TrainStep } from "../training/train-step.js";
export type { StepOptimizer, TrainStepInputs, TrainStepOptions } from "../training/train-step-options.js";
export {
  type Adapter,
  type AdapterFormat,
  adapterFormatOf,
  type LoadedAdapter,
  readAdapter,
  writeAdapter,
} from "./adapter-format.js";
export type { AdapterLayout } from "./fera/adapter-state.js";
export { type ConsistencyLossInputs, feclLoss, frequencyEnergyConsistencyLoss } from "./fera/consistency-loss.js";
export {
  addExperts,
  expandGates,
  type LinearLayer,
  linearLayers,
  matchesTarget,
  RoutedExperts,
} from "./fera/experts.js";
export {
  type BandDefinition,
  FeRAConfig,
  type FeRAOptions,
  type LayerMatching,
  type SigmaRule,
} from "./fera/fera-config.js";
export { type FeRAInputs, FeRAModel, type Routing } from "./fera/fera-model.js";
export { freezeGates } from "./fera/frozen-gates.js";
export {
  type Conditions,
  evenTimesteps,
  type FreezingError,
  type FreezingErrorAtTimestep,
  freezingError,
  type GatesAtTimestep,
  gatesOverTimesteps,
  meanGates,
  type NoisyLatents,
} from "./fera/gate-statistics.js";
export { type BandOptions, bandEnergies, FrequencyEnergyIndicator, frequencyBands } from "./fera/indicator.js";
export { route, SoftFrequencyRouter, type SoftFrequencyRouterOptions } from "./fera/router.js";
export { type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora/lora-names.js";
export {
  type PlainLoraFormat,
  type PlainLoraOptions,
  plainLoraPathProblem,
  writePlainLora,
} from "./lora/plain-lora.js";
