// Whether a pipeline's parts were made for each other.

import { ConfigError } from "../../errors.js";
import type { Autoencoder } from "../../models/autoencoder.js";
import type { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import type { CLIPTokenizer } from "../../models/clip-tokenizer/clip-tokenizer.js";
import type { UNetComponents } from "./unet-components.js";

/** @throws {ConfigError} Always, saying which rule is broken. */
export function refuseParts(pipeline: string, rule: string): never {
  throw new ConfigError(`${pipeline}: ${rule}. Take the parts of one pipeline's folder.`);
}

/** @throws {ConfigError} Unless the UNet works on the autoencoder's latents, and those become colour images. */
export function checkAutoencoder(pipeline: string, { unet, vae }: Pick<UNetComponents, "unet" | "vae">): void {
  const { in_channels: channels, out_channels: predicted } = unet.config;
  const latentChannels = vae.config.latent_channels;
  if (channels !== latentChannels || predicted !== latentChannels) {
    refuseParts(
      pipeline,
      `the unet's in_channels and out_channels must be the vae's latent_channels; got ${channels}, ${predicted} and ${latentChannels}`,
    );
  }
  checkColours(pipeline, vae);
}

/** @throws {ConfigError} Unless the denoiser works on the autoencoder's latents, and those become colour images. */
export function checkLatents(pipeline: string, channels: number, vae: Autoencoder): void {
  const { config } = vae;
  if (channels !== config.latent_channels) {
    refuseParts(
      pipeline,
      `the transformer's latents must be the vae's, of latent_channels; got ${channels} and ${config.latent_channels}`,
    );
  }
  checkColours(pipeline, vae);
}

/**
 * @param which - "" or "second ", for messages.
 * @throws {ConfigError} Unless the encoder has an embedding for every token.
 */
export function checkVocabulary(
  pipeline: string,
  tokenizer: { vocabSize: number },
  textEncoder: { config: { vocab_size: number } },
  which: "" | "second " = "",
): void {
  const { vocab_size: vocabulary } = textEncoder.config;
  if (tokenizer.vocabSize <= vocabulary) return;
  refuseParts(
    pipeline,
    `the ${which}tokenizer has ${tokenizer.vocabSize} tokens, the ${which}text encoder's vocab_size is ${vocabulary}`,
  );
}

/**
 * @param which - "" or "second ", for messages.
 * @throws {ConfigError} Unless the encoder can take everything that the tokenizer gives.
 */
export function checkTokenizer(
  pipeline: string,
  tokenizer: CLIPTokenizer,
  textEncoder: CLIPTextModel,
  which: "" | "second " = "",
): void {
  checkVocabulary(pipeline, tokenizer, textEncoder, which);
  const { max_position_embeddings: positions } = textEncoder.config;
  if (tokenizer.maxLength > positions) {
    refuseParts(
      pipeline,
      `the ${which}tokenizer gives ${tokenizer.maxLength} tokens, the ${which}text encoder's max_position_embeddings is ${positions}`,
    );
  }
}

/** @throws {ConfigError} Unless the autoencoder takes and gives red, green and blue. */
function checkColours(pipeline: string, { config }: Autoencoder): void {
  for (const key of ["in_channels", "out_channels"] as const) {
    if (config[key] !== 3) refuseParts(pipeline, `the vae's ${key} must be 3; got ${config[key]}`);
  }
}
