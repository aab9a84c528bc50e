// Which images and captions a step sees, how they vary, and where they are kept once they are encoded.

import { CACHE_MODES } from "../cache/cache-modes.js";
import { VARIATION_OPTIONS } from "./data-options.js";
import { choice, integer, number, text } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const BATCH_OPTIONS = {
  batchSize: integer("images per batch", { min: 1 }).withDefault(4),
  gradientAccumulation: integer("batches per step", { min: 1 }).withDefault(1),
  captionDropout: number("share of captions replaced by the empty one", { min: 0, below: 1 }).withDefault(0.1),
  ...VARIATION_OPTIONS,
  cacheLatents: choice(
    "where encoded images are kept: on disk for this and other trainings, in memory, or nowhere, so that they are " +
      "encoded whenever they are drawn; by default on disk, and nowhere with --random-crop",
    CACHE_MODES,
  ).changesNothing(),
  cacheTextEncoderOutputs: choice(
    "the same for text states; by default on disk, and nowhere where captions vary",
    CACHE_MODES,
  ).changesNothing(),
  cacheDir: text(
    "folder for what is kept on disk; by default encoded in the user's cache folder",
    "FOLDER",
  ).changesNothing(),
};
