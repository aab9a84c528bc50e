// Between images and the latents that a diffusion model works on: (z − shift) · scale, z the autoencoder's.

import { AutoencoderKL, sampleLatents } from "../models/autoencoder-kl/autoencoder-kl.js";
import type { AutoencoderTiny } from "../models/autoencoder-tiny/autoencoder-tiny.js";
import type { Generator } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";
import { throwIfAborted } from "./abort.js";
import { concatRows, rowsOf, sliceRows } from "./batches.js";

/** Images decoded at once: more would need more memory and be no faster. */
const DECODE_BATCH = 4;

/**
 * Encodes images.
 *
 * AutoencoderKL gives a distribution; z = mean + exp(logvar / 2) · noise, the noise of all images in one draw.
 *
 * @param images - `[B, 3, H, W]` in −1 … 1.
 * @returns `[B, C, H/downscale, W/downscale]`.
 * @throws {ShapeError} If the autoencoder cannot take the size.
 */
export async function imagesToLatents(
  vae: AutoencoderKL | AutoencoderTiny,
  images: Tensor<"float32">,
  generator: Generator,
): Promise<Tensor<"float32">> {
  const { scaling_factor: scale, shift_factor: shift } = vae.config;
  let latents: Tensor<"float32">;
  if (vae instanceof AutoencoderKL) {
    const encoded = [];
    for (const image of rowsOf(images)) encoded.push(await vae.encode(image));
    const mean = concatRows(encoded.map((each) => each.mean));
    const logvar = concatRows(encoded.map((each) => each.logvar));
    latents = sampleLatents({ mean, logvar }, { generator });
  } else {
    const encoded = [];
    for (const image of rowsOf(images)) encoded.push((await vae.encode(image)).latents);
    latents = concatRows(encoded);
  }
  return mapped(latents, (value) => (value - shift) * scale);
}

/**
 * Decodes latents.
 *
 * @param latents - `[B, C, h, w]`.
 * @returns B images `[3, H, W]`, clamped to −1 … 1.
 * @throws {AbortError} Between batches of images, if the signal has fired.
 */
export async function latentsToImages(
  vae: AutoencoderKL | AutoencoderTiny,
  latents: Tensor<"float32">,
  signal: AbortSignal | undefined,
): Promise<Tensor<"float32">[]> {
  const { scaling_factor: scale, shift_factor: shift } = vae.config;
  const unscaled = mapped(latents, (value) => value / scale + shift);
  const images: Tensor<"float32">[] = [];
  const count = latents.shape[0]!;
  for (let from = 0; from < count; from += DECODE_BATCH) {
    throwIfAborted("generate", signal);
    const decoded = await vae.decode(sliceRows(unscaled, from, Math.min(from + DECODE_BATCH, count)));
    for (const image of rowsOf(decoded)) {
      const clamped = mapped(image, (value) => Math.min(Math.max(value, -1), 1));
      images.push(clamped.reshape(image.shape.slice(1)));
    }
  }
  return images;
}

function mapped(x: Tensor<"float32">, value: (value: number) => number): Tensor<"float32"> {
  return new Tensor("float32", x.shape, x.data.map(value));
}
