export { type GradientOptions, gradients } from "./gradients.js";
export { NoGradient, RULES } from "./rules.js";
