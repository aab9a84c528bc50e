// Textual inversion: a new token whose vectors are learned, made of the vectors of known words.

import { ConfigError, quoted } from "../../errors.js";
import type { AnyPipeline } from "../../pipelines/index.js";
import { writeTokenEmbedding } from "../../pipelines/token-embedding.js";
import type { Tensor } from "../../tensor/tensor.js";

/** A token that is learned. */
export interface NewTokenOptions {
  /** What captions have. */
  token: string;
  /** A word or words whose vectors it begins with. */
  initialize: string;
  /** How many vectors it has. Default 1. */
  vectors?: number | undefined;
  captions: Iterable<string>;
}

/**
 * Adds the token to a pipeline's tokenizers and text encoders. Its vectors begin as those of the tokens of `initialize`, over
 * and over where it has more. A token of that name from before is forgotten.
 *
 * @throws {ConfigError} If no caption has it, `initialize` has no token, it is a known word, or the pipeline has tokens of
 *   other embeddings: their vectors would be trained with it.
 * @see Gal et al. 2022, arXiv:2208.01618
 */
export async function addNewToken(pipeline: AnyPipeline, options: NewTokenOptions): Promise<void> {
  const { token, initialize, vectors: count = 1, captions } = options;
  if (![...captions].some((caption) => caption.includes(token))) {
    throw new ConfigError(
      `trainTokens: no caption has ${quoted(token)}. Write it into captions, into the instance prompt, or before every ` +
        "caption (captionPrefix).",
    );
  }
  if (pipeline.addedTokens.includes(token)) await pipeline.unloadTextualInversion(token);
  const [other] = pipeline.addedTokens;
  if (other !== undefined) {
    throw new ConfigError(`trainTokens: the pipeline has the token ${quoted(other)} already; unload it before.`);
  }
  const begun: Tensor<"float32">[] = [];
  for (const [i, encoder] of pipeline.textEncoders.entries()) {
    const { ids, length } = pipeline.tokenizers[i]!.encode(initialize);
    const words = ids.slice(1, length - 1);
    if (words.length === 0) throw new ConfigError(`initializeTokens: ${quoted(initialize)} has no token.`);
    begun.push(await encoder.tokenVectors(Array.from({ length: count }, (_, at) => words[at % words.length]!)));
    await encoder.release();
  }
  await pipeline.loadTextualInversion({ token, vectors: begun });
}

/** Writes a pipeline's vectors of its only token. */
export const saveNewToken = (pipeline: AnyPipeline, token: string, path: string): Promise<void> =>
  writeTokenEmbedding(path, { token, vectors: pipeline.textEncoders.map(({ addedVectors }) => addedVectors!) });
