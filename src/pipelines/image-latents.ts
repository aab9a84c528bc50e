// Between images and the latents that a diffusion model works on: (z − shift) · scale, z the autoencoder's.

import { ImageTensor } from "../images/image-tensor.js";
import type { Autoencoder } from "../models/autoencoder.js";
import { sampleLatents } from "../models/autoencoder-kl/kl-autoencoder.js";
import { scaledLatents, unscaledLatents } from "../models/autoencoder-kl/latent-scaling.js";
import { AutoencoderTiny } from "../models/autoencoder-tiny/autoencoder-tiny.js";
import type { Generator } from "../tensor/random.js";
import { concatRows, rowsOf, sliceRows } from "../tensor/rows.js";
import { Tensor } from "../tensor/tensor.js";

/** Following and ending work on several images. */
export interface ImageWork {
  /** @param done - Images, of `total`. */
  onProgress?: (done: number, total: number) => void;
  /** Between images. */
  signal?: AbortSignal | undefined;
  /** How many images are decoded at once. */
  together?: number | undefined;
}

/** Images decoded at once by default: more would need more memory and be no faster. */
const DECODE_BATCH = 4;

/**
 * Encodes images.
 *
 * AutoencoderKL gives a distribution; z = mean + exp(logvar / 2) · noise, the noise of all images in one draw; without a
 * generator z = mean.
 *
 * @param images - `[B, 3, H, W]` in −1 … 1.
 * @returns `[B, C, H/downscale, W/downscale]`.
 * @throws {ShapeError} If the autoencoder cannot take the size.
 * @throws The signal's reason, if it has fired.
 */
export async function imagesToLatents(
  vae: Autoencoder,
  images: Tensor<"float32">,
  generator: Generator | undefined,
  { onProgress, signal }: ImageWork = {},
): Promise<Tensor<"float32">> {
  const each = async <T>(encode: (image: Tensor<"float32">) => Promise<T>): Promise<T[]> => {
    const encoded: T[] = [];
    for (const image of rowsOf(images)) {
      signal?.throwIfAborted();
      encoded.push(await encode(image));
      onProgress?.(encoded.length, images.shape[0]!);
    }
    return encoded;
  };
  let z: Tensor<"float32">;
  if (vae instanceof AutoencoderTiny) {
    z = concatRows(await each(async (image) => (await vae.encode(image)).latents));
  } else {
    const encoded = await each((image) => vae.encode(image));
    const mean = concatRows(encoded.map((each) => each.mean));
    const logvar = concatRows(encoded.map((each) => each.logvar));
    z = generator ? sampleLatents({ mean, logvar }, { generator }) : mean;
  }
  return scaledLatents(z, await vae.latentScaling());
}

/**
 * Decodes latents.
 *
 * @param latents - `[B, C, h, w]`.
 * @returns B images `[3, H, W]`, clamped to −1 … 1.
 * @throws The signal's reason, between batches of images, if it has fired.
 */
export async function latentsToImages(
  vae: Autoencoder,
  latents: Tensor<"float32">,
  { onProgress, signal, together = DECODE_BATCH }: ImageWork = {},
): Promise<ImageTensor[]> {
  const unscaled = unscaledLatents(latents, await vae.latentScaling());
  const images: ImageTensor[] = [];
  const count = latents.shape[0]!;
  for (let from = 0; from < count; from += together) {
    signal?.throwIfAborted();
    const decoded = await vae.decode(sliceRows(unscaled, from, Math.min(from + together, count)));
    for (const image of rowsOf(decoded)) {
      const clamped = mapped(image, (value) => Math.min(Math.max(value, -1), 1));
      images.push(ImageTensor.fromTensor(clamped));
    }
    onProgress?.(images.length, count);
  }
  return images;
}

function mapped(x: Tensor<"float32">, value: (value: number) => number): Tensor<"float32"> {
  return new Tensor("float32", x.shape, x.data.map(value));
}
