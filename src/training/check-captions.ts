// Whether captions fit into what a pipeline's text encoders take, before anything is encoded.

import { ConfigError, printable, quoted } from "../errors.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { StableDiffusion3Pipeline } from "../pipelines/index.js";
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
  if (!(pipeline instanceof StableDiffusion3Pipeline)) {
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
