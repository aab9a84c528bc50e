// Which images and captions a step sees.

import { integer, number } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const BATCH_OPTIONS = {
  batchSize: integer("images per batch", { min: 1 }).withDefault(4),
  gradientAccumulation: integer("batches per step", { min: 1 }).withDefault(1),
  captionDropout: number("share of captions replaced by the empty one", { min: 0, below: 1 }).withDefault(0.1),
};
