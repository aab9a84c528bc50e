export {
  type Adapter,
  type AdapterFileAccess,
  type AdapterFormat,
  adapterFormatOf,
  type LoadedAdapter,
  readAdapter,
  registerAdapterFileAccess,
  writeAdapter,
} from "./adapter-files.js";
export type { AdapterLayout } from "./adapter-state.js";
export { type ConsistencyLossInputs, feclLoss, frequencyEnergyConsistencyLoss } from "./consistency-loss.js";
export { addExperts, expandGates, type LinearLayer, linearLayers, matchesTarget, RoutedExperts } from "./experts.js";
export {
  type BandDefinition,
  FeRAConfig,
  type FeRAOptions,
  type LayerMatching,
  type SigmaRule,
} from "./fera-config.js";
export { type FeRAInputs, FeRAModel, type Routing } from "./fera-model.js";
export { freezeGates } from "./frozen-gates.js";
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
} from "./gate-statistics.js";
export { type BandOptions, bandEnergies, FrequencyEnergyIndicator, frequencyBands } from "./indicator.js";
export { type KohyaNaming, kohyaName, kohyaNamingOf } from "./lora-names.js";
export { type PlainLoraFormat, type PlainLoraOptions, plainLoraPathProblem, writePlainLora } from "./plain-lora.js";
export { route, SoftFrequencyRouter, type SoftFrequencyRouterOptions } from "./router.js";
export { TrainStep } from "./train-step.js";
export type { StepOptimizer, TrainStepInputs, TrainStepOptions } from "./train-step-options.js";
