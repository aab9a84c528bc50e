// A data set of the browser's storage as rows of latents and text states, in memory.

import type { StableDiffusionPipeline } from "../../../../src/pipelines/stable-diffusion/stable-diffusion-pipeline.js";
import { concatRows, sliceRows, takeRows } from "../../../../src/tensor/rows.js";
import type { Tensor } from "../../../../src/tensor/tensor.js";
import { flipped } from "../../../../src/training/data/image-variant.js";
import {
  encodeCaptions,
  encodeImageBatch,
  imagesPerBatch,
  tokenizeCaptions,
} from "../../../../src/training/encode-images.js";
import type { EncodedRows } from "../../../../src/training/encoded-dataset.js";
import { DATA_FOLDER, findFile, findFolder, namesIn, readText } from "../files.js";
import { captionName, isImageName, planesOf, readImage, squarePixels, wordsOf } from "../images.js";
import type { TabValues } from "./tab-options.js";

/** An image that is trained on. */
export interface TrainingImage {
  name: string;
  caption: string;
}

/** Told while images are read and encoded; throws where the training is to end. */
export type OnEncoded = (what: "images" | "captions", done: number, of: number) => void;

/** @throws {Error} If there is no such data set, or no image in it. */
export async function findImages(
  root: FileSystemDirectoryHandle,
  { data, instancePrompt, captionPrefix, captionSuffix }: TabValues,
): Promise<{ folder: FileSystemDirectoryHandle; images: TrainingImage[] }> {
  const [name] = data;
  const folder = await findFolder(root, DATA_FOLDER, name!);
  if (!folder) throw new Error(`data: there is no data set "${name}" in this browser any more.`);
  const files = (await namesIn(folder, "file")).filter(isImageName);
  if (files.length === 0) throw new Error(`data: "${name}" holds no image. Drop some into it, under Data.`);
  const images = await Promise.all(
    files.map(async (file) => {
      const own = await readText(folder, captionName(file));
      const words = own?.trim() ?? instancePrompt ?? wordsOf(file);
      return { name: file, caption: [captionPrefix, words, captionSuffix].filter(Boolean).join(" ") };
    }),
  );
  return { folder, images };
}

/**
 * Encodes all images, mirrored ones too where they are flipped.
 *
 * @throws {Error} That names the image that cannot be read, or the captions that are too long.
 */
export async function encodeRows(
  pipeline: StableDiffusionPipeline,
  { folder, images }: Awaited<ReturnType<typeof findImages>>,
  { resolution, flip }: { resolution: number; flip: boolean },
  onEncoded: OnEncoded,
): Promise<EncodedRows> {
  const captions = images.map(({ caption }) => caption);
  tokenizeCaptions(pipeline.tokenizer, captions, (i) => images[i]!.name);
  onEncoded("captions", 0, images.length);
  // All at once: batches are filled up.
  const encoded = await encodeCaptions(pipeline.tokenizer, pipeline.textEncoder, [...captions, ""]);
  const states = sliceRows(encoded, 0, images.length);
  const empty = sliceRows(encoded, images.length, images.length + 1);
  const size = { width: resolution, height: resolution };
  const together = imagesPerBatch(size);
  const upright: Tensor<"float32">[] = [];
  const mirrored: Tensor<"float32">[] = [];
  for (let start = 0; start < images.length; start += together) {
    const planes = await Promise.all(
      images.slice(start, start + together).map(({ name }) => planesAt(folder, name, resolution)),
    );
    upright.push((await encodeImageBatch(pipeline.vae, planes, size)).latents);
    if (flip) {
      const turned = planes.map((each) => flipped(each, resolution, true));
      mirrored.push((await encodeImageBatch(pipeline.vae, turned, size)).latents);
    }
    onEncoded("images", Math.min(start + together, images.length), images.length);
  }
  await pipeline.release();
  // Mirrored ones stand behind all others.
  const latents = concatRows([...upright, ...mirrored]);
  const [, , latentHeight, latentWidth] = latents.shape as [number, number, number, number];
  return {
    size: images.length,
    empty: { encoderHiddenStates: empty },
    latentSize: () => ({ latentHeight, latentWidth }),
    async read(draws) {
      const rows = draws.map(({ index, variant }) => (variant?.flip ? images.length + index : index));
      return {
        latents: takeRows(latents, rows),
        conditioning: {
          encoderHiddenStates: takeRows(
            states,
            draws.map(({ index }) => index),
          ),
        },
      };
    },
  };
}

async function planesAt(folder: FileSystemDirectoryHandle, name: string, side: number): Promise<Float32Array> {
  const file = await findFile(folder, name);
  if (!file) throw new Error(`${name} is not there any more.`);
  try {
    const bitmap = await readImage(file);
    const planes = planesOf(squarePixels(bitmap, side));
    bitmap.close();
    return planes;
  } catch (cause) {
    throw new Error(`${name} ${(cause as Error).message}. Remove it, or put another in its place.`, { cause });
  }
}
