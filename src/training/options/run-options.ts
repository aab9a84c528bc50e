// How a training runs, what it keeps and what it shows.

import { flag, integer, repeated, text } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const RUN_OPTIONS = {
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
