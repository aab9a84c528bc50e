// What every platform offers: making images, and training. The entries index.ts (Node) and web.ts (browser) add their
// backend and their storage.

export { gradients } from "./autodiff/index.js";
export { createObjective, type Objective } from "./diffusion/index.js";
export * from "./inference.js";
export { ParameterAverage } from "./training/average.js";
export { learningRateSchedule } from "./training/learning-rate.js";
export { AdamW, type AdamWOptions } from "./training/optimizers/adamw.js";
export { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./training/optimizers/create-optimizer.js";
export { Lion, type LionOptions } from "./training/optimizers/lion.js";
export type { Optimizer } from "./training/optimizers/optimizer.js";
