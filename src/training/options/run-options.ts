// How a training runs, what it keeps and what it shows.

import { MIXED_PRECISIONS } from "../../adapters/train-step-options.js";
import { choice, flag, integer, memorySize, number, repeated, text } from "./option.js";

/** Viewers that a training can write files for. */
export const LOGS = ["none", "tensorboard"] as const;

/** Part of `TRAINING_OPTIONS`. */
export const RUN_OPTIONS = {
  gradientCheckpointing: flag(
    "recompute activations instead of keeping them: less memory, more time, the same result",
  ).changesNothing(),
  memoryLimit: memorySize(
    "most of the CPU's memory that the whole process may take, such as 6GB: what each part will take is worked out and told " +
      "before the start, activations are recomputed and images encoded in tiles where they must be, and what cannot fit is refused",
  ).changesNothing(),
  mixedPrecision: choice(
    "fp16: products and convolutions in float16, with a loss scale that backs off where gradients overflow; norms, softmax, " +
      "losses and what is trained stay float32; for GPUs, no faster on the CPU",
    MIXED_PRECISIONS,
  ).withDefault("no"),
  seed: integer("the same seed gives the same training", { min: 0 }).withDefault(0),
  checkpointEvery: integer("steps between checkpoints; 0 for one at the end", { min: 0 })
    .withDefault(250)
    .changesNothing(),
  keepCheckpoints: integer(
    "how many of the newest checkpoints are kept, beside the one with the lowest validation loss; 0 for all",
    { min: 0 },
  )
    .withDefault(2)
    .changesNothing(),
  onNonFinite: choice(
    "where a loss or gradient is not finite: stop, or go back to the newest checkpoint and on without that batch",
    ["stop", "rollback"],
  )
    .withDefault("stop")
    .changesNothing(),
  validationPrompts: repeated(
    "a prompt to draw while training, with and without the adapter",
    "PROMPT",
  ).changesNothing(),
  validateEvery: integer("steps between drawings, the last step always; by default a quarter of all steps", {
    min: 1,
  }).changesNothing(),
  numValidationImages: integer("drawings of each prompt, with seeds that count up from --seed", { min: 1 })
    .withDefault(1)
    .changesNothing(),
  validationSteps: integer("sampling steps of these drawings; by default as generate does", {
    min: 1,
  }).changesNothing(),
  validationGuidanceScale: number("guidance of these drawings; by default as generate does", {
    min: 0,
  }).changesNothing(),
  validationLossEvery: integer(
    "steps between measurements of the loss on --validation-data, or on the held-out images where there are some; the " +
      "first and the last step always; 0 for none; by default a tenth of all steps with --validation-data, else none",
    { min: 0 },
  ).changesNothing(),
  log: choice("what else is written, for a viewer: tensorboard's event files, in a folder of that name", LOGS)
    .withDefault("none")
    .changesNothing(),
  adapterName: text("the adapter in the output folder: NAME.safetensors, NAME.pt, or a folder", "NAME")
    .withDefault("adapter.safetensors")
    .changesNothing(),
};
