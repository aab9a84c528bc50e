// The layout of a training's output folder: every name in it, and nothing else.

import { join } from "node:path";

/**
 * - `run.json`: the options that the run was started with.
 * - `dataset.json`: the images and captions that it is trained on, by their hashes.
 * - `metrics.jsonl`: a line per step. `loss.png`: its plot.
 * - `checkpoints/`: the newest states. `validation/`: pictures along the way.
 * - `.training.lock`: held while a training runs.
 */
export const OUTPUT_NAMES = {
  run: "run.json",
  dataset: "dataset.json",
  metrics: "metrics.jsonl",
  lossPlot: "loss.png",
  checkpoints: "checkpoints",
  validation: "validation",
  lock: ".training.lock",
} as const;

/** A path in an output folder. */
export const outputPath = (output: string, name: keyof typeof OUTPUT_NAMES): string => join(output, OUTPUT_NAMES[name]);

/** Whether a name in the folder is the training's own; the adapter can have none of them. */
export const isOwnName = (name: string): boolean => Object.values<string>(OUTPUT_NAMES).includes(name.toLowerCase());

/** The picture of a step in `validation/`. */
export const validationPicture = (output: string, step: number): string =>
  join(outputPath(output, "validation"), `step-${String(step).padStart(6, "0")}.png`);

/** Whether a name in `validation/` is a picture of {@link validationPicture}. */
export const isValidationPicture = (name: string): boolean => /^step-\d+\.png$/.test(name);
