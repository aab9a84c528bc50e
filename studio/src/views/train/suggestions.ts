// Defaults that fit the data and the machine, each with its reason in a sentence.

import { counted } from "../../../../src/cli/format.js";
import type { DataSetImage, StudioState, TrainSettings } from "../../../../src/studio/protocol.js";
import { formatBytes } from "../../parts/amounts.js";

/** What a setting should be, and why. */
export interface Suggestion {
  option: string;
  /** Undefined where the option's own default is right, or only the person knows. */
  value?: unknown;
  reason: string;
}

/** What suggestions are made of. */
export interface Circumstances {
  /** Of all data sets that are trained on, as they are cut to squares. */
  images: readonly DataSetImage[];
  /** Side that the model was trained for. */
  defaultSize: number | undefined;
  machine: StudioState["machine"];
  kind: StudioState["kind"];
  /** What the person has set. */
  own: TrainSettings;
}

/** How often an image is seen in a training: enough for a subject, before it is learned by heart. */
const PASSES = { server: 100, tab: 30 };
const STEPS = { server: { least: 200, most: 3000 }, tab: { least: 60, most: 400 } };
const LARGEST_BATCH = 4;
/** Part of the memory that a training may take. */
const MEMORY_SHARE = 0.6;
/**
 * Memory of trainings, from two that were measured on a processor: Stable Diffusion 1.5 at 512 pixels took 5.2 GB with one image, SDXL
 * at 1,024 16.6 GB with gradient checkpointing.
 */
const COSTS = {
  small: { weights: 0.5e9, image: 1.7e9 / 512 ** 2 },
  medium: { weights: 3.5e9, image: 1.7e9 / 512 ** 2 },
  large: { weights: 11e9, image: 5.6e9 / 1024 ** 2 },
};
/** Below it a model is a small one. */
const SMALL_SIDE = 256;
/** What `fera demo` trains the embedded model with. */
const SMALL_MODEL_RATE = 1.5e-3;
/** A cut to a square that takes more than this away is worth buckets. */
const MUCH_CUT = 0.2;

/** All suggestions, in no order. */
export function suggest(circumstances: Circumstances): Suggestion[] {
  const { images, defaultSize } = circumstances;
  const batch = suggestBatch(circumstances);
  return [
    ...suggestLearningRate(circumstances),
    ...(defaultSize === undefined
      ? []
      : [{ option: "resolution", reason: explainSize(defaultSize, circumstances.kind) }]),
    ...(images.length === 0
      ? []
      : [
          ...batch,
          ...suggestSteps(circumstances, batch.find(({ option }) => option === "batchSize")?.value),
          ...suggestPrompts(circumstances),
          ...suggestBuckets(circumstances),
          ...suggestCaptions(circumstances),
        ]),
  ];
}

/** The default suits large models: with it a small one shows next to nothing after a few hundred steps. */
function suggestLearningRate({ defaultSize, own }: Circumstances): Suggestion[] {
  const isUsual = own.optimizer === undefined || own.optimizer === "adamw";
  if (defaultSize === undefined || defaultSize >= SMALL_SIDE || !isUsual) return [];
  const reason = "A small model learns little from a few hundred steps at 1e-4, which suits large ones.";
  return [{ option: "learningRate", value: SMALL_MODEL_RATE, reason }];
}

/** A tab has a smaller default than the model's own size, for its sake. */
const explainSize = (side: number, kind: StudioState["kind"]): string =>
  kind === "tab"
    ? `The model was made for ${side} pixels: fewer train faster in a tab, and show less.`
    : `Left empty, it is the model's own size: ${side} pixels.`;

/** Images of an epoch. */
const epochOf = (images: readonly DataSetImage[]): number => images.reduce((sum, { repeats }) => sum + repeats, 0);

function suggestBatch({ images, defaultSize, machine, kind, own }: Circumstances): Suggestion[] {
  const side = typeof own.resolution === "number" ? own.resolution : defaultSize;
  if (side === undefined) {
    const reason = "One image at a time, as the size of this model is not known before it is loaded.";
    return [{ option: "batchSize", value: 1, reason }];
  }
  const cost = side < 256 ? COSTS.small : side < 768 ? COSTS.medium : COSTS.large;
  const { memoryBytes } = machine;
  const fitting =
    memoryBytes === undefined
      ? side < 256
        ? LARGEST_BATCH
        : 1
      : Math.floor((MEMORY_SHARE * memoryBytes - cost.weights) / (cost.image * side ** 2));
  const value = Math.max(1, Math.min(LARGEST_BATCH, fitting, images.length));
  const memory = memoryBytes === undefined ? "" : ` of ${formatBytes(memoryBytes)}`;
  const place = kind === "tab" ? "this tab" : `this machine${memory}`;
  const reason =
    value === images.length && value < fitting
      ? `There ${images.length === 1 ? "is one image" : `are ${images.length} images`}.`
      : value < LARGEST_BATCH
        ? `As many as should fit into ${place} at ${side} pixels.`
        : `At ${side} pixels, ${value} images should fit into ${place} easily.`;
  const batch = { option: "batchSize", value, reason };
  if (side < 768 && fitting >= 1) return [batch];
  const why = `At ${side} pixels memory is scarce: this takes less of it, and more time.`;
  return [batch, { option: "gradientCheckpointing", value: true, reason: why }];
}

function suggestSteps({ images, kind, own }: Circumstances, suggestedBatch: unknown): Suggestion[] {
  const batch = [own.batchSize, suggestedBatch].find((size) => typeof size === "number" && size > 0) as number;
  const accumulation = typeof own.gradientAccumulation === "number" ? Math.max(1, own.gradientAccumulation) : 1;
  const epoch = epochOf(images);
  const { least, most } = STEPS[kind];
  const wanted = (epoch * PASSES[kind]) / (batch * accumulation);
  const unit = wanted < 200 ? 10 : 50;
  const value = Math.min(most, Math.max(least, Math.round(wanted / unit) * unit));
  const passes = Math.round((value * batch * accumulation) / epoch);
  const reason = `Each of ${counted(images.length, "image")} is seen about ${passes} times.`;
  return [{ option: "steps", value, reason }];
}

/** Whether an image has words of its own. */
const isCaptioned = ({ caption, warnings }: DataSetImage): boolean =>
  caption.trim() !== "" && !warnings.some(({ kind }) => kind === "uncaptioned" || kind === "emptyCaption");

function suggestPrompts({ images, kind }: Circumstances): Suggestion[] {
  const captions = [...new Set(images.filter(isCaptioned).map(({ caption }) => caption.trim()))];
  if (captions.length === 0) return [];
  const value = captions.length === 1 || kind === "tab" ? [captions[0]] : [captions[0], captions[captions.length >> 1]];
  const what = value.length === 1 ? "A caption" : "Two captions";
  return [
    {
      option: "validationPrompts",
      value,
      reason: `${what} of your images: pictures along the way show what is learned.`,
    },
  ];
}

function suggestBuckets({ images }: Circumstances): Suggestion[] {
  const cut = images.filter(({ crop }) => crop.width * crop.height < 1 - MUCH_CUT).length;
  if (cut < images.length / 4) return [];
  const much = `${Math.round(100 * MUCH_CUT)} %`;
  const reason = `${cut} of ${counted(images.length, "image")} would lose more than ${much} if cut to a square.`;
  return [{ option: "bucket", value: true, reason }];
}

function suggestCaptions({ images }: Circumstances): Suggestion[] {
  const bare = images.filter((image) => !isCaptioned(image)).length;
  if (bare === 0) return [];
  const reason =
    bare === images.length
      ? "None of the images has a caption. Say here what they show, such as a photo of sks dog."
      : `${bare} of ${counted(images.length, "image")} have no caption. Say here what they show.`;
  return [{ option: "instancePrompt", reason }];
}
