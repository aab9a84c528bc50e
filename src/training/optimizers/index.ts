export { AdamW, type AdamWOptions } from "./adamw.js";
export { createOptimizer, OPTIMIZER_NAMES, type OptimizerName } from "./create-optimizer.js";
export { clipGradients, gradientNorm } from "./gradient-clipping.js";
export { Lion, type LionOptions } from "./lion.js";
export { Optimizer } from "./optimizer.js";
