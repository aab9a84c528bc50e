// The options of a training, each declared once: flags, configuration files, help, run.json and the fingerprint that guards
// a resumed run come from this table, and so does what `fineTune` takes.

import { LEARNING_RATE_SCHEDULES } from "../learning-rate.js";
import { OPTIMIZER_NAMES } from "../optimizers/index.js";
import { choice, flag, integer, number, type OptionValues, repeated, text } from "./option.js";

/** Whatever has a default is left out freely. */
export const TRAINING_OPTIONS = {
  steps: integer("optimizer steps", { min: 1 })
    .withDefault(1000)
    .keptWhere(({ schedule }) => schedule !== "constant", "the learning rate of every step depends on it"),
  batchSize: integer("images per batch", { min: 1 }).withDefault(4),
  optimizer: choice("what turns gradients into steps", OPTIMIZER_NAMES).withDefault("adamw"),
  learningRate: number("learning rate of the optimizer", { min: 0 }).withDefault(1e-4),
  schedule: choice("learning-rate schedule", LEARNING_RATE_SCHEDULES).withDefault("constant"),
  warmupSteps: integer("steps over which the learning rate rises from 0", { min: 0 }).withDefault(0),
  weightDecay: number("decoupled weight decay", { min: 0 }).withDefault(0.01),
  captionDropout: number("share of captions replaced by the empty one", { min: 0, below: 1 }).withDefault(0.1),
  noiseOffset: number(
    "strength of the noise that a channel has as a whole, for darker and brighter images; 0 for none",
    {
      min: 0,
    },
  ).withDefault(0),
  gradientAccumulation: integer("batches per step", { min: 1 }).withDefault(1),
  maxGradientNorm: number("largest norm of all gradients; 0 for no clipping", { min: 0 }).withDefault(1),
  averageDecay: number("decay of an average of the adapters, which is then what is saved; 0 for none", {
    min: 0,
    below: 1,
  }).withDefault(0),
  gradientCheckpointing: flag(
    "recompute activations instead of keeping them: less memory, more time, the same result",
  ).changesNothing(),
  seed: integer("the same seed gives the same training", { min: 0 }).withDefault(0),
  checkpointEvery: integer("steps between checkpoints; 0 for one at the end", { min: 0 })
    .withDefault(250)
    .changesNothing(),
  validationPrompts: repeated("a prompt to draw while training", "PROMPT").changesNothing(),
  validateEvery: integer("steps between drawings, the last step always; by default a quarter of all steps", {
    min: 1,
  }).changesNothing(),
  adapterName: text("the adapter in the output folder: NAME.safetensors, NAME.pt, or a folder", "NAME")
    .withDefault("adapter.safetensors")
    .changesNothing(),
};

/** Values of {@link TRAINING_OPTIONS}. */
export type TrainingOptionValues = OptionValues<typeof TRAINING_OPTIONS>;
