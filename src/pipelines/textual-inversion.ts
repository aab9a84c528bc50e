// New tokens of a pipeline's text encoders, whose vectors textual inversion learned.

import { ConfigError, quoted } from "../errors.js";
import type { CLIPTextModel } from "../models/clip-text/clip-text-model.js";
import type { CLIPTokenizer } from "../models/clip-tokenizer/clip-tokenizer.js";
import { concatRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";

/** A text encoder with its tokenizer. */
interface Encoder {
  tokenizer: CLIPTokenizer;
  textEncoder: CLIPTextModel;
}

/** Tokens by name, each with vectors in every text encoder. */
export class AddedTokens {
  readonly #encoders: () => readonly Encoder[];
  readonly #tokens = new Map<string, readonly Tensor<"float32">[]>();

  constructor(encoders: () => readonly Encoder[]) {
    this.#encoders = encoders;
  }

  get names(): readonly string[] {
    return [...this.#tokens.keys()];
  }

  /**
   * @param vectors - `[N, hidden_size]` for each text encoder, the same N; values may change in place where it is the only
   *   token.
   * @throws {ConfigError} If the token is known already or no token, or the vectors are for other text encoders.
   */
  add(token: string, vectors: readonly Tensor<"float32">[]): void {
    const encoders = this.#encoders();
    const wanted = encoders.map(({ textEncoder }) => textEncoder.config.hidden_size);
    const came = vectors.map(({ shape }) => shape[1]);
    if (wanted.join() !== came.join() || vectors.some(({ shape }) => shape[0] !== vectors[0]!.shape[0])) {
      throw new ConfigError(
        `textual inversion: ${quoted(token)} must have vectors of ${wanted.join(" and ")} features, those of the text ` +
          `encoders; got ${came.join(" and ")}. It was learned for another model.`,
      );
    }
    const added: Encoder[] = [];
    try {
      for (const [i, encoder] of encoders.entries()) {
        const first = encoder.textEncoder.vocabularySize;
        encoder.tokenizer.addToken(
          token,
          Array.from({ length: vectors[i]!.shape[0]! }, (_, at) => first + at),
        );
        added.push(encoder);
      }
    } catch (error) {
      for (const { tokenizer } of added) tokenizer.removeToken(token);
      throw error;
    }
    this.#tokens.set(token, vectors);
    this.#install();
  }

  /** @throws {ConfigError} If there is no such token. */
  remove(token: string): void {
    if (!this.#tokens.has(token)) {
      throw new ConfigError(
        `unloadTextualInversion: there is no token ${quoted(token)}; loaded are ${this.names.map(quoted).join(", ") || "none"}.`,
      );
    }
    const rest = [...this.#tokens].filter(([name]) => name !== token);
    for (const name of this.names) for (const { tokenizer } of this.#encoders()) tokenizer.removeToken(name);
    this.#tokens.clear();
    this.#install();
    // Ids of tokens behind it move up.
    for (const [name, vectors] of rest) this.add(name, vectors);
  }

  #install(): void {
    for (const [i, { textEncoder }] of this.#encoders().entries()) {
      const all = [...this.#tokens.values()].map((vectors) => vectors[i]!);
      textEncoder.addedVectors = all.length > 1 ? concatRows(all) : all[0];
    }
  }
}
