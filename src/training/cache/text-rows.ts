// Captions as text states, one entry each: encoded once and kept, or encoded when they are drawn. Node only.

import type { Conditioning } from "../../diffusion/index.js";
import { concatConditioning } from "../../diffusion/index.js";
import { type AnyPipeline, StableDiffusionXLPipeline } from "../../pipelines/index.js";
import { zeros } from "../../tensor/tensor.js";
import { entryKey } from "./cache-key.js";
import type { EntryStore } from "./entry-store.js";

/** What {@link TextRows} are made of. */
export interface TextParts {
  pipeline: AnyPipeline;
  store: EntryStore;
  /** Of the text encoders; see `encoderKey`. */
  modelKey: string;
  /** Whether captions are encoded at each draw, so that the text encoders stay loaded between them. */
  staysLoaded?: boolean;
}

/** What a batch has of its captions. */
export interface CaptionRows {
  /** The row of the empty caption. */
  readonly empty: Conditioning;
  /** A row per caption. */
  read(captions: readonly string[]): Promise<Conditioning>;
  /** Frees what was compiled. */
  release(): Promise<void>;
}

/**
 * Captions as a pipeline's denoiser is told of them: `encoderHiddenStates`, in SDXL with `textEmbeds`. By the text encoders
 * alone, without adapters.
 */
export class TextRows implements CaptionRows {
  private readonly keys = new Map<string, string>();

  private constructor(
    private readonly parts: TextParts,
    /** The row of the empty caption; in SDXL what `generate` uses where there is no negative prompt. */
    readonly empty: Conditioning,
  ) {}

  /** Encodes the empty caption, unless it is there. */
  static async open(parts: TextParts): Promise<TextRows> {
    const rows = new TextRows(parts, {});
    const { pipeline } = parts;
    const empty = await rows.row("");
    const isNothing = pipeline instanceof StableDiffusionXLPipeline && pipeline.forceZerosForEmptyPrompt;
    const nothing = () =>
      Object.fromEntries(Object.entries(empty).map(([name, { shape }]) => [name, zeros([...shape])]));
    return new TextRows(parts, isNothing ? nothing() : empty);
  }

  /**
   * Encodes and keeps what is not there yet, each caption once, however many images have it.
   *
   * @param onProgress - Called with the number of different captions that are there, and how many there are.
   */
  async encode(
    captions: readonly string[],
    onProgress?: (done: number, of: number) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    const different = [...new Set(captions)];
    const missing = different.filter((caption) => !this.parts.store.has(this.keyOf(caption)));
    let done = different.length - missing.length;
    onProgress?.(done, different.length);
    for (const caption of missing) {
      signal?.throwIfAborted();
      await this.row(caption);
      onProgress?.(++done, different.length);
    }
  }

  /** A row per caption. What is not kept, or damaged, is encoded now. */
  async read(captions: readonly string[]): Promise<Conditioning> {
    const { staysLoaded } = this.parts;
    const rows: Conditioning[] = [];
    let made = 0;
    for (const caption of captions) {
      rows.push(await this.row(caption, () => made++));
    }
    if (made > 0 && !staysLoaded) await this.release();
    return concatConditioning(rows);
  }

  /** Frees what the text encoders have compiled; it is compiled again when needed. */
  async release(): Promise<void> {
    await this.parts.pipeline.releasePromptEncoders();
  }

  private async row(caption: string, onMade?: () => void): Promise<Conditioning> {
    const { store } = this.parts;
    const key = this.keyOf(caption);
    const kept = await store.get(key);
    if (kept) return Object.fromEntries(kept);
    const made = await this.parts.pipeline.encodeCaptions([caption]);
    onMade?.();
    await store.put(key, new Map(Object.entries(made)));
    return made;
  }

  /** What the states depend on is the tokens. */
  private keyOf(caption: string): string {
    const known = this.keys.get(caption);
    if (known !== undefined) return known;
    const { pipeline, modelKey } = this.parts;
    const key = entryKey("text", modelKey, pipeline.captionIds(caption));
    this.keys.set(caption, key);
    return key;
  }
}
