// Encodes images to scaled latents and captions to text states, once, before training.

import { ConfigError, printable, quoted } from "../errors.js";
import type { Autoencoder } from "../models/autoencoder.js";
import { scaledLatents, scaledSpread } from "../models/autoencoder-kl/latent-scaling.js";
import { AutoencoderTiny } from "../models/autoencoder-tiny/autoencoder-tiny.js";
import type { CLIPTextModel } from "../models/clip-text/clip-text-model.js";
import type { CLIPTokenizer } from "../models/clip-tokenizer/clip-tokenizer.js";
import { concatRows } from "../tensor/rows.js";
import { sizeOf, type Tensor, tensor } from "../tensor/tensor.js";

/** Images of at most this many pixels are encoded in batches of {@link SMALL_IMAGES}. */
const SMALL_PIXELS = 64 * 64;
const SMALL_IMAGES = 8;
const CAPTIONS_PER_BATCH = 16;
/** Most captions that a message names. */
const NAMED = 10;

/** Where images come from: `ImageDataset` has this form. */
export interface ImageSource {
  readonly size: number;
  readonly imageSize: number;
  image(index: number): Promise<Float32Array>;
}

/** Scaled latents, ready for noise; with the spread for an autoencoder that has one. */
export interface EncodedImages {
  /** `[N, C, h, w]`. */
  latents: Tensor<"float32">;
  latentStd?: Tensor<"float32">;
}

/**
 * How many images of a size one graph encodes. Always as many, whatever there are: so an image's latents depend on nothing
 * else, to the bit.
 *
 * From 64 pixels on, single images take little longer than batches, and memory is that of one.
 */
export const imagesPerBatch = ({ width, height }: { width: number; height: number }): number =>
  width * height < SMALL_PIXELS ? SMALL_IMAGES : 1;

/**
 * Encodes a batch: latents = (mean − shift) · scale.
 *
 * @param images - `[3, H, W]` in −1 … 1 each, as many as {@link imagesPerBatch} says, or fewer.
 */
export async function encodeImageBatch(
  vae: Autoencoder,
  images: readonly Float32Array[],
  { width, height }: { width: number; height: number },
): Promise<EncodedImages> {
  const pixels = 3 * height * width;
  const count = imagesPerBatch({ width, height });
  // Filled up with zeros: one compiled graph serves all.
  const batch = new Float32Array(count * pixels);
  for (const [i, image] of images.entries()) batch.set(image, i * pixels);
  const input = tensor(batch, [count, 3, height, width]);
  const encoded =
    vae instanceof AutoencoderTiny ? { mean: (await vae.encode(input)).latents } : await vae.encode(input);
  const shape = encoded.mean.shape.slice(1);
  const length = images.length * sizeOf(shape);
  const rows = (values: Float32Array) => tensor(values, [images.length, ...shape]);
  const scaling = await vae.latentScaling();
  const latents = scaledLatents(rows(encoded.mean.data.slice(0, length)), scaling);
  const logvar = "logvar" in encoded ? encoded.logvar : undefined;
  if (!logvar) return { latents };
  const std = rows(logvar.data.slice(0, length).map((value) => Math.exp(value / 2)));
  return { latents, latentStd: scaledSpread(std, scaling) };
}

/**
 * Encodes every image, in memory.
 *
 * @param onProgress - Called with the number of images done.
 */
export async function encodeImages(
  vae: Autoencoder,
  source: ImageSource,
  onProgress?: (done: number) => void,
): Promise<EncodedImages> {
  const size = { width: source.imageSize, height: source.imageSize };
  const count = imagesPerBatch(size);
  const chunks: EncodedImages[] = [];
  for (let start = 0; start < source.size; start += count) {
    const indices = Array.from({ length: Math.min(count, source.size - start) }, (_, i) => start + i);
    chunks.push(await encodeImageBatch(vae, await Promise.all(indices.map((i) => source.image(i))), size));
    onProgress?.(start + indices.length);
  }
  const latents = concatRows(chunks.map((chunk) => chunk.latents));
  if (!chunks[0]?.latentStd) return { latents };
  return { latents, latentStd: concatRows(chunks.map((chunk) => chunk.latentStd!)) };
}

/**
 * Token ids `[N, L]` of captions.
 *
 * @param nameOf - What a caption belongs to, for messages; without it they are prompts.
 * @throws {ConfigError} That names the captions that are too long, all in one message.
 */
export function tokenizeCaptions(
  tokenizer: CLIPTokenizer,
  captions: readonly string[],
  nameOf?: (index: number) => string,
): Tensor<"int64"> {
  const { ids, overflows } = tokenizer.encodeBatch(captions);
  const long = captions.flatMap((caption, i) => {
    if (overflows[i] === undefined) return [];
    return [`${nameOf ? `${printable(nameOf(i))} ` : ""}${quoted(caption)}: ${quoted(overflows[i])} does not fit`];
  });
  if (long.length > 0) {
    const more = long.length > NAMED ? `; … and ${long.length - NAMED} more` : "";
    const noun = nameOf ? "caption" : "prompt";
    const what = long.length === 1 ? `a ${noun} is` : `${long.length} of ${captions.length} ${noun}s are`;
    throw new ConfigError(
      `${what} longer than the ${tokenizer.maxLength} tokens of this model's tokenizer: ` +
        `${long.slice(0, NAMED).join("; ")}${more}. Shorten ${long.length === 1 ? "it" : "them"}.`,
    );
  }
  return ids;
}

/** Text states `[N, L, D]` of captions. */
export async function encodeCaptions(
  tokenizer: CLIPTokenizer,
  textEncoder: CLIPTextModel,
  captions: readonly string[],
): Promise<Tensor<"float32">> {
  const ids = tokenizeCaptions(tokenizer, captions);
  const length = tokenizer.maxLength;
  const chunks: Float32Array[] = [];
  let features = 0;
  for (let start = 0; start < captions.length; start += CAPTIONS_PER_BATCH) {
    const count = Math.min(CAPTIONS_PER_BATCH, captions.length - start);
    const batch = new BigInt64Array(CAPTIONS_PER_BATCH * length);
    batch.set(ids.data.subarray(start * length, (start + count) * length));
    const states = await textEncoder.encode(tensor(batch, [CAPTIONS_PER_BATCH, length]));
    features = states.shape[2]!;
    chunks.push(states.data.slice(0, count * length * features));
  }
  return tensor(join(chunks), [captions.length, length, features]);
}

function join(chunks: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    result.set(chunk, offset);
    offset += chunk.length;
  }
  return result;
}
