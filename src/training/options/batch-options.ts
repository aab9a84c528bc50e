// Which images and captions a step sees, how they vary, and where they are kept once they are encoded.

import { CACHE_MODES } from "../cache/cache-modes.js";
import { choice, flag, integer, number, text } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const BATCH_OPTIONS = {
  batchSize: integer("images per batch", { min: 1 }).withDefault(4),
  gradientAccumulation: integer("batches per step", { min: 1 }).withDefault(1),
  captionDropout: number("share of captions replaced by the empty one", { min: 0, below: 1 }).withDefault(0.1),
  flip: flag("mirror images left for right, half of the time; both variants are encoded and kept"),
  randomCrop: flag("cut images at a random place instead of the centre; they are encoded whenever they are drawn"),
  shuffleCaption: flag(
    "shuffle the parts of captions between commas each time; they are encoded whenever they are drawn",
  ),
  keepTokens: integer("how many parts of a caption stay in front when they are shuffled or left out", {
    min: 0,
  }).withDefault(0),
  tagDropout: number("share of the parts of captions that are left out each time", { min: 0, below: 1 }).withDefault(0),
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
