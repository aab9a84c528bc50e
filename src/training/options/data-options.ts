// Which images and captions are learned from, and how they are read: for every command that opens data. And how they vary
// from one time to the next, which is part of a batch's options.

import { DEFAULT_BUCKET_STEP } from "../data/buckets.js";
import { DEFAULT_VALIDATION_SPLIT } from "../data/hold-out.js";
import { anyText, flag, integer, number, type OptionValues, repeated, text } from "./option.js";

/** What a place of data can be. */
const PLACES =
  "a folder of images, Parquet files, or a data set on the hub; FOLDER=N takes its images N times an epoch";

/** The data itself. */
export const DATA = repeated(`${PLACES}; or icons:STYLE`, "FOLDER");

/** What every command takes that opens data; `validationSplit` must be the training's to find what it held out. */
export const DATA_OPTIONS = {
  validationSplit: number("share of the images that is held out from training, rounded down; 0 for none", {
    min: 0,
    below: 1,
  }).withDefault(DEFAULT_VALIDATION_SPLIT),
  instancePrompt: anyText(
    "caption of images that have none of their own; by default the words of a folder such as 10_sks dog, else their file name",
    "PROMPT",
  ),
  captionExtension: text("ending of caption files; by default .txt, then .caption", "EXTENSION"),
  captionPrefix: text("comes before every caption, and a space", "TEXT"),
  captionSuffix: text("comes after every caption, behind a space", "TEXT"),
  imageColumn: text("column of images in Parquet files; found by itself where it is named as usual", "NAME"),
  captionColumn: text(
    "column of captions in Parquet files, metadata.jsonl and .csv; by default text, caption or prompt",
    "NAME",
  ),
  repeats: integer("how often each image comes in an epoch, times the number of a folder such as 10_dog", {
    min: 1,
  }).withDefault(1),
  bucket: flag("train each image at the shape nearest to its own (aspect-ratio buckets), not cut to a square"),
  bucketMin: integer("shortest side of a bucket in pixels, rounded up to a step; by default half the resolution", {
    min: 1,
  }),
  bucketMax: integer("longest side of a bucket in pixels, rounded down to a step; by default twice the resolution", {
    min: 1,
  }),
  bucketStep: integer(`sides of buckets are multiples of this; ${DEFAULT_BUCKET_STEP} by default`, { min: 1 }),
  bucketNoUpscale: flag("images smaller than the resolution keep their size, in buckets of their own"),
  mask: flag(
    "weigh the loss by masks: NAME.mask.png, NAME-masklabel.png or mask/NAME.png, white counts; else by the image's alpha",
  ),
  background: text("what lies behind transparent parts, as a CSS colour", "COLOUR").withDefault("white"),
  regularizationPrompt: anyText("caption of regularization images that have none of their own: their class", "PROMPT"),
  followLinks: flag("follow links that lead out of the data folder: they can name any file of yours"),
  skippedList: text("writes every file that is not used, and why, to this file", "FILE").changesNothing(),
};

/** Values of {@link DATA_OPTIONS}. */
export type DataOptionValues = OptionValues<typeof DATA_OPTIONS>;

/** What only a training takes beside {@link DATA_OPTIONS}. */
export const TRAINING_DATA_OPTIONS = {
  regularizationData: repeated(
    "regularization images, which show the class at large, as --data; so do folders named reg in it",
    "FOLDER",
  ),
  regularizationWeight: number("factor of their loss", { min: 0 }).withDefault(1),
};

/** How images and captions vary from one time to the next: part of a batch's options. */
export const VARIATION_OPTIONS = {
  flip: flag("mirror images left for right, half of the time"),
  randomCrop: flag("cut images at a random place instead of the centre"),
  shuffleCaption: flag("shuffle the parts of captions between commas each time"),
  keepTokens: integer("how many parts of a caption stay in front when they are shuffled or left out", {
    min: 0,
  }).withDefault(0),
  tagDropout: number("share of the parts of captions that are left out each time", { min: 0, below: 1 }).withDefault(0),
};
