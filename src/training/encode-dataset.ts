// A dataset as a pipeline's UNet sees it: images as latents, captions as text states, in SDXL with sizes.

import { ConfigError, quoted } from "../errors.js";
import { type AnyPipeline, StableDiffusionXLPipeline, type XLPromptStates } from "../pipelines/index.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { checkCaptions } from "./check-captions.js";
import type { ImageDataset } from "./data/dataset.js";
import { encodeImages } from "./encode-images.js";
import type { EncodedDataset } from "./encoded-dataset.js";

/**
 * Encodes a dataset with a pipeline's autoencoder and text encoders, and frees what they have compiled.
 *
 * SDXL is told each image's size before scaling, where it was cropped, and the size that it has now, as diffusers'
 * `train_text_to_image_lora_sdxl.py` does. Its empty caption is what `generate` uses where there is no negative prompt.
 *
 * @param onProgress - Called with the number of images done.
 * @throws {ConfigError} If a caption is longer than the model allows.
 */
export async function encodeDataset(
  pipeline: AnyPipeline,
  dataset: ImageDataset,
  onProgress?: (done: number) => void,
): Promise<EncodedDataset> {
  for (let i = 0; i < dataset.size; i++) {
    const { width, height } = dataset.shape(i);
    if (width === dataset.imageSize && height === dataset.imageSize) continue;
    throw new ConfigError(
      `encodeDataset: images must all be ${dataset.imageSize}×${dataset.imageSize}, without buckets; ` +
        `got ${width}×${height} of ${quoted(dataset.name(i))}. Rows of several sizes are read with openDatasetRows.`,
    );
  }
  const captions = Array.from({ length: dataset.size }, (_, i) => dataset.caption(i));
  checkCaptions(pipeline, captions, (i) => dataset.name(i));
  const captioned =
    pipeline instanceof StableDiffusionXLPipeline
      ? await encodeXL(pipeline, dataset, captions)
      : {
          conditioning: await pipeline.encodeCaptions(captions),
          empty: await pipeline.encodeCaptions([""]),
        };
  await pipeline.releasePromptEncoders();
  const images = await encodeImages(pipeline.vae, dataset, onProgress);
  await pipeline.vae.release();
  return { ...images, ...captioned };
}

async function encodeXL(
  pipeline: StableDiffusionXLPipeline,
  dataset: ImageDataset,
  captions: readonly string[],
): Promise<Pick<EncodedDataset, "conditioning" | "empty">> {
  const states = await pipeline.encodePrompt(captions);
  const empty = pipeline.forceZerosForEmptyPrompt ? noText(states) : await pipeline.encodePrompt([""]);
  return {
    conditioning: { ...flatStates(states), timeIds: await timeIds(dataset) },
    empty: flatStates(empty),
  };
}

const flatStates = ({ encoderHiddenStates, textEmbeds }: XLPromptStates) => ({ encoderHiddenStates, textEmbeds });

function noText({ encoderHiddenStates, textEmbeds }: XLPromptStates): XLPromptStates {
  const [, tokens, features] = encoderHiddenStates.shape as [number, number, number];
  return {
    encoderHiddenStates: zeros([1, tokens, features]),
    textEmbeds: zeros([1, textEmbeds.shape[1]!]),
  };
}

async function timeIds(dataset: ImageDataset) {
  const rows: number[] = [];
  for (let i = 0; i < dataset.size; i++) {
    const { originalSize, cropTopLeft } = await dataset.placement(i);
    const { width, height } = dataset.shape(i);
    rows.push(...originalSize, ...cropTopLeft, height, width);
  }
  return tensor(Float32Array.from(rows), [dataset.size, 6]);
}
