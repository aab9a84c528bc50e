// Whether captions fit into what a pipeline's text encoders take, before anything is encoded.

import { ConfigError, printable, quoted } from "../errors.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { FlowPipeline } from "../pipelines/index.js";
import { tokenizeCaptions } from "./encode-images.js";

/**
 * @param nameOf - What a caption belongs to, for messages; without it they are prompts.
 * @throws {ConfigError} That names captions that are too long.
 */
export function checkCaptions(
  pipeline: AnyPipeline,
  captions: readonly string[],
  nameOf?: (index: number) => string,
): void {
  if (!(pipeline instanceof FlowPipeline)) {
    for (const tokenizer of pipeline.tokenizers) tokenizeCaptions(tokenizer, captions, nameOf);
    return;
  }
  for (const [i, caption] of captions.entries()) {
    try {
      pipeline.captionIds(caption);
    } catch (cause) {
      if (!(cause instanceof ConfigError)) throw cause;
      const whose = nameOf ? `the caption of ${printable(nameOf(i))}` : `the prompt ${quoted(caption)}`;
      throw new ConfigError(`${whose}: ${cause.message}`, { cause });
    }
  }
}

/**
 * @throws {ConfigError} If captions come to different numbers of tokens, so that one graph cannot take them all.
 */
export function checkCaptionTokens(pipeline: AnyPipeline, captions: readonly string[]): void {
  const tokens = captions.map((caption) => pipeline.captionTokens(caption));
  const other = tokens.findIndex((count) => count !== tokens[0]);
  if (other < 0) return;
  throw new ConfigError(
    `all captions of a training of ${pipeline.denoiser.className} must fill the same multiple of 32 tokens; ` +
      `${quoted(captions[0])} fills ${tokens[0]}, ${quoted(captions[other])} ${tokens[other]}. Make them of like length` +
      `${captions[other] === "" ? ", or set captionDropout (--caption-dropout) to 0" : ""}.`,
  );
}
