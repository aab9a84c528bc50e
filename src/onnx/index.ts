export { type ModelMemory, modelMemory } from "./activation-memory.js";
export { inHalfPrecision } from "./half-precision.js";
export { lower, type OnnxModel } from "./lower.js";
export type { Target } from "./lowering-context.js";
export { type Fallbacks, fallbacksOf, type ListedProvider, PROVIDER_OPERATORS } from "./provider-operators.js";
