export { type ModelMemory, modelMemory } from "./activation-memory.js";
export { lower, type OnnxModel } from "./lower.js";
export type { Target } from "./lowering-context.js";
