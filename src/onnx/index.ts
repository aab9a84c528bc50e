export { lower, type OnnxModel } from "./lower.js";
export type { Target } from "./lowering-context.js";
