// Captions as token ids: what a batch has where something of the text encoders is trained, so that no text states are kept.

import { type Conditioning, concatConditioning } from "../../diffusion/index.js";
import { StableDiffusionXLPipeline, type UNetPipeline } from "../../pipelines/index.js";
import { tensor } from "../../tensor/tensor.js";
import { HAS_TEXT, ID_INPUTS } from "../text/text-encoders.js";
import type { CaptionRows } from "./text-rows.js";

/**
 * `inputIds [B, T]`, in SDXL with `inputIds2`; and `hasText [B]` where an empty caption is zeros in place of its states,
 * as `generate` has it where there is no negative prompt.
 */
export class TokenRows implements CaptionRows {
  readonly empty: Conditioning;
  private readonly rows = new Map<string, Conditioning>();

  constructor(private readonly pipeline: UNetPipeline) {
    this.empty = this.row("", 0);
  }

  async read(captions: readonly string[]): Promise<Conditioning> {
    return concatConditioning(
      captions.map((caption) => {
        const row = this.rows.get(caption) ?? this.row(caption, 1);
        this.rows.set(caption, row);
        return row;
      }),
    );
  }

  async release(): Promise<void> {
    for (const encoder of this.pipeline.textEncoders) await encoder.release();
  }

  private row(caption: string, hasText: number): Conditioning {
    const { pipeline } = this;
    const isXl = pipeline instanceof StableDiffusionXLPipeline;
    const tokenizers = isXl ? [pipeline.tokenizer, pipeline.tokenizer2] : [pipeline.tokenizer];
    const ids = tokenizers.map((tokenizer, i) => [ID_INPUTS[i]!, tokenizer.encodeBatch([caption]).ids] as const);
    const zeroesEmpty = isXl && pipeline.forceZerosForEmptyPrompt;
    return { ...Object.fromEntries(ids), ...(zeroesEmpty && { [HAS_TEXT]: tensor([hasText], [1]) }) };
  }
}
