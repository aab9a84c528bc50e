// How long is trained, and how gradients become steps.

import { LEARNING_RATE_SCHEDULES } from "../learning-rate.js";
import { OPTIMIZER_NAMES } from "../optimizers/index.js";
import { choice, integer, number } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const OPTIMIZER_OPTIONS = {
  steps: integer("optimizer steps", { min: 1 })
    .withDefault(1000)
    .keptWhere(({ schedule }) => schedule !== "constant", "the learning rate of every step depends on it"),
  optimizer: choice("what turns gradients into steps", OPTIMIZER_NAMES).withDefault("adamw"),
  learningRate: number("learning rate of the optimizer", { min: 0 }).withDefault(1e-4),
  schedule: choice("learning-rate schedule", LEARNING_RATE_SCHEDULES).withDefault("constant"),
  warmupSteps: integer("steps over which the learning rate rises from 0", { min: 0 }).withDefault(0),
  weightDecay: number("decoupled weight decay", { min: 0 }).withDefault(0.01),
  maxGradientNorm: number("largest norm of all gradients; 0 for no clipping", { min: 0 }).withDefault(1),
  averageDecay: number("decay of an average of the adapters, which is then what is saved; 0 for none", {
    min: 0,
    below: 1,
  }).withDefault(0),
};
