// What tells one training's model and data from another's: hashes of weights, images and captions. Node only.

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { AdapterConfig } from "../adapters/index.js";
import { FormatError, quoted } from "../errors.js";
import type { FileRange } from "../graph/index.js";
import type { ModelWeights } from "../nn/index.js";
import { type AnyPipeline, FlowPipeline, StableDiffusionXLPipeline } from "../pipelines/index.js";
import { noiseConfigOf } from "../schedulers/index.js";
import { Tensor, toBytes } from "../tensor/tensor.js";
import type { ImageDataset } from "./data/dataset.js";
import type { OptionSpecs } from "./options/option.js";

const SHOWN_HEX = 16;
/** Of weights that lie in files: they are read once. */
const knownHashes = new WeakMap<ModelWeights["weights"], Promise<string>>();

/**
 * A hash of all weights of a model, by name, shape and value.
 *
 * Files are read once, in the order of their ranges: about a second per gigabyte.
 *
 * @param onBytes - Called with how many more are done; not where the hash is known.
 * @returns 16 hexadecimal digits of SHA-256.
 * @throws {FormatError} If a file of weights has gone.
 */
export function weightsHash(
  { weights }: ModelWeights,
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<string> {
  const known = knownHashes.get(weights);
  if (known) return known;
  const hash = hashOf(weights, signal, onBytes);
  // What is in memory can be changed in place.
  if ([...weights.values()].some((weight) => "tensor" in weight)) return hash;
  knownHashes.set(weights, hash);
  hash.catch(() => knownHashes.delete(weights));
  return hash;
}

async function hashOf(
  weights: ModelWeights["weights"],
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<string> {
  const hash = createHash("sha256");
  for (const name of [...weights.keys()].sort()) {
    signal?.throwIfAborted();
    const weight = weights.get(name)!;
    hash.update(`${name}[${weight.shape.join(",")}]`);
    if ("tensor" in weight) {
      const bytes = toBytes(weight.tensor);
      hash.update(bytes);
      onBytes?.(bytes.length);
    } else {
      await addRange(hash, weight.range, onBytes);
      // Integers alone are not the weight.
      const { stored } = weight.range;
      if (typeof stored === "object") await addRange(hash, stored.type === "int8" ? stored.scale : stored.absmax);
    }
  }
  return hash.digest("hex").slice(0, SHOWN_HEX);
}

async function addRange(
  hash: Hash,
  { path, offset, length }: FileRange,
  onBytes?: (bytes: number) => void,
): Promise<void> {
  if (length === 0) return;
  try {
    for await (const chunk of createReadStream(path, { start: offset, end: offset + length - 1 })) {
      hash.update(chunk);
      onBytes?.((chunk as Uint8Array).length);
    }
  } catch (cause) {
    throw new FormatError(path, `cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

/** What {@link weightsHash} reads. */
const bytesOf = ({ weights }: ModelWeights): number =>
  [...weights.values()].reduce(
    (sum, weight) => sum + ("tensor" in weight ? weight.tensor.data.byteLength : weight.range.length),
    0,
  );

/** Each image's content, caption, shape, and how much it counts, by its name in the dataset. */
export type DatasetIdentity = Record<string, { content: string; caption: string; shape: string; weight: string }>;

const nameOf = (stored: NonNullable<FileRange["stored"]>): string =>
  typeof stored === "object" ? stored.type : stored;

/** How the weights of each model are kept, where that is not as float32; nothing where all are. */
function typesOf(models: Readonly<Record<string, { weights: ModelWeights }>>): { dtype?: Record<string, string> } {
  const types = Object.entries(models).flatMap(([name, { weights }]) => {
    const stored = [...weights.weights.values()].flatMap((weight) =>
      "range" in weight && weight.range.stored !== undefined ? [nameOf(weight.range.stored)] : [],
    );
    return stored.length === 0 ? [] : [[name, [...new Set(stored)].sort().join(" and ")] as const];
  });
  return types.length === 0 ? {} : { dtype: Object.fromEntries(types) };
}

/** What a training is trained on. */
export function datasetIdentity(dataset: ImageDataset): DatasetIdentity {
  const identity: DatasetIdentity = {};
  for (let i = 0; i < dataset.size; i++) {
    identity[dataset.name(i)] = {
      content: dataset.contentHash(i).slice(0, SHOWN_HEX),
      caption: contentHash(dataset.caption(i)),
      shape: `${dataset.shape(i).width}×${dataset.shape(i).height}`,
      weight: `${dataset.lossWeight(i)} · ${dataset.repeats(i)}`,
    };
  }
  return identity;
}

/** 16 hexadecimal digits of SHA-256. */
export const contentHash = (content: string | Uint8Array): string =>
  createHash("sha256").update(content).digest("hex").slice(0, SHOWN_HEX);

/** What differs between two datasets, in words; empty where nothing does. */
export function datasetChanges(before: DatasetIdentity, now: DatasetIdentity): string[] {
  const changes: string[] = [];
  for (const [name, { content, caption, shape, weight }] of Object.entries(before)) {
    const current = now[name];
    if (!current) changes.push(`image ${quoted(name)} is gone`);
    else if (current.content !== content) changes.push(`image ${quoted(name)} has changed`);
    else if (current.caption !== caption) changes.push(`the caption of ${quoted(name)} has changed`);
    else if (current.shape !== shape) changes.push(`image ${quoted(name)} was ${shape}, is ${current.shape}`);
    else if (current.weight !== weight) {
      changes.push(`the weight · repeats of ${quoted(name)} was ${weight}, is ${current.weight}`);
    }
  }
  for (const name of Object.keys(now)) if (!before[name]) changes.push(`image ${quoted(name)} is new`);
  return changes;
}

/** What a training's numbers depend on. */
export interface TrainingParts {
  pipeline: AnyPipeline;
  dataset: ImageDataset;
  identity: DatasetIdentity;
  config: AdapterConfig;
  /** Declared options, and all their values. */
  specs: OptionSpecs;
  values: Readonly<Record<string, unknown>>;
  signal?: AbortSignal | undefined;
  /** Called with the bytes of weights that have been read, of how many. */
  onHashed?: ((done: number, of: number) => void) | undefined;
}

/** The fingerprint of a training, as JSON: options by name, and hashes of what is too large to be kept. */
export async function trainingFingerprint(parts: TrainingParts): Promise<string> {
  const { pipeline, dataset, identity, config, specs, values, signal, onHashed } = parts;
  const isXL = pipeline instanceof StableDiffusionXLPipeline;
  const models: Record<string, { weights: ModelWeights; config: unknown }> = {
    [pipeline instanceof FlowPipeline ? "transformer" : "unet"]: pipeline.denoiser,
    vae: pipeline.vae,
    ...pipeline.promptEncoders,
  };
  const weights: Record<string, string> = {};
  const of = Object.values(models).reduce((sum, model) => sum + bytesOf(model.weights), 0);
  let done = 0;
  onHashed?.(done, of);
  for (const [name, model] of Object.entries(models)) {
    weights[name] = await weightsHash(model.weights, signal, (bytes) => {
      done += bytes;
      onHashed?.(done, of);
    });
  }
  const captions = [...Array.from({ length: dataset.size }, (_, i) => dataset.caption(i)), ""];
  // All captions of one tokenizer after the other, as int64.
  const ids = captions.map((caption) => pipeline.captionIds(caption));
  const tokens = ids[0]!.map((_, i) =>
    BigInt64Array.from(
      ids.flatMap((each) => each[i]!),
      BigInt,
    ),
  );
  const kept = Object.keys(specs).filter((name) => specs[name]!.isKept(values));
  return JSON.stringify({
    ...Object.fromEntries(kept.map((name) => [name, values[name]])),
    adapter: config.adapterType,
    config,
    resolution: dataset.imageSize,
    dataset: contentHash(JSON.stringify(identity)),
    tokens: tokens.map((each) => contentHash(toBytes(new Tensor("int64", [each.length], each)))),
    scheduler: noiseConfigOf("training", pipeline.schedulerConfig),
    weights,
    ...typesOf(models),
    models: Object.fromEntries(Object.entries(models).map(([name, model]) => [name, model.config])),
    ...(isXL && { forceZerosForEmptyPrompt: pipeline.forceZerosForEmptyPrompt }),
    ...(pipeline.vae.tilings.encode && { encodingTiles: pipeline.vae.tilings.encode }),
  });
}
