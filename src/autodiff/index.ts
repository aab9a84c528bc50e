export { gradients } from "./gradients.js";
export { NoGradient, RULES } from "./rules.js";
