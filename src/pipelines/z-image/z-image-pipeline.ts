// ZImagePipeline: Z-Image and Z-Image-Turbo, whose text encoder is a Qwen3. Reads no files itself.

import type { StackPrediction } from "../../adapters/adapter-stack.js";
import type { Conditioning, DenoiserInputs } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { QwenTokenizer } from "../../models/qwen-tokenizer/qwen-tokenizer.js";
import { Qwen3Model } from "../../models/qwen3/qwen3-model.js";
import {
  filledUp,
  TOKEN_UNIT,
  ZImageTransformer2DModel,
} from "../../models/z-image-transformer-2d/z-image-transformer-2d.js";
import type { RunOptions, Scheduler } from "../../schedulers/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { evenSigmas, FlowPipeline } from "../flow-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import type { GenerationPlan } from "../generation-plan.js";
import { type FlowComponents, loadFlowComponents } from "../load-flow-components.js";
import { describePipeline } from "../pipeline-folder.js";
import { chatStates, checkedChatIds } from "../qwen-encoding.js";
import { checkLatents, checkVocabulary, refuseParts } from "../stable-diffusion/component-checks.js";
import type { PipelineOptions } from "../stable-diffusion/load-components.js";
import { checkSequenceLength } from "../t5-encoding.js";
import { predictByLength, tokenRows } from "./caption-lengths.js";

const NAME = "ZImagePipeline";
const TOKENS = 512;
/** The state behind the last layer but one. */
const LAYER = -2;
/** Of images of 1024 pixels. */
const LATENT_SIDE = 128;
const THINKING = true;

/** Options of Z-Image's `generate`. */
export interface ZImageOptions extends GenerateOptions {
  /** Tokens, those of the chat included, up to 512, the default. A longer prompt is refused. */
  maxSequenceLength?: number;
  /**
   * Strength of the prompt as Z-Image counts it: 0 and below is without guidance, at half the work, and what Turbo is made
   * for; g guides as far as 1 + g does elsewhere. Default 5.
   */
  guidanceScale?: number;
}

/** The parts of a {@link ZImagePipeline}. */
export interface ZImageComponents extends FlowComponents<ZImageTransformer2DModel> {
  textEncoder: Qwen3Model;
  tokenizer: QwenTokenizer;
}

/**
 * Z-Image.
 *
 * B batch, T tokens, a multiple of 32.
 *
 * @see diffusers' ZImagePipeline
 */
export class ZImagePipeline extends FlowPipeline<ZImageOptions, ZImageTransformer2DModel> {
  readonly textEncoder: Qwen3Model;
  readonly tokenizer: QwenTokenizer;

  /** @throws {ConfigError} If a part is missing, or the parts do not fit each other. */
  constructor(components: ZImageComponents) {
    checkFit(components);
    const { transformer: denoiser, vae, scheduler } = components;
    super({ denoiser, vae, scheduler }, { latentSize: [LATENT_SIDE, LATENT_SIDE], guidanceScale: 5, strength: 0.6 });
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
  }

  override get textEncoders(): readonly [] {
    return [];
  }

  override get tokenizers(): readonly [] {
    return [];
  }

  override get promptEncoders() {
    return { text_encoder: this.textEncoder };
  }

  /** The multiple of 32 that it fills. */
  override captionTokens(caption: string): number {
    return filledUp(this.captionIds(caption)[0]!.length);
  }

  protected override get otherEncoders(): readonly Qwen3Model[] {
    return [this.textEncoder];
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout.
   *
   * @param dir - The folder with `model_index.json`; where there is no such folder, an id on the hub (owner/name).
   * @throws {HubError} If the model cannot be had from the hub.
   * @throws {FormatError} If a file or part is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<ZImagePipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, tokenizerSource, config } = description;
    const tokenizer = await QwenTokenizer.fromPretrained(tokenizerSource);
    const textEncoder = await Qwen3Model.fromPretrained(source, { ...options, config, subfolder: "text_encoder" });
    const components = await loadFlowComponents(description, options, ZImageTransformer2DModel);
    return new ZImagePipeline({ ...components, textEncoder, tokenizer });
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models.
   *
   * @param options.config - Required: the folder or hub id of a pipeline of the family, for all that is not in the file.
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that no model uses.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<ZImagePipeline> {
    return ZImagePipeline.fromPretrained(path, options);
  }

  /**
   * What the transformer is told of prompts: the encoder's states behind its last layer but one, of the tokens of the prompt,
   * and which of the T rows are tokens. T is what the longest prompt fills.
   *
   * @returns `encoderHiddenStates` `[B, T, D]` and `encoderAttentionMask` `[B, T]`.
   * @throws {ConfigError} If a prompt is too long; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    { maxSequenceLength = TOKENS }: Pick<ZImageOptions, "maxSequenceLength"> = {},
  ): Promise<{ encoderHiddenStates: Tensor<"float32">; encoderAttentionMask: Tensor<"float32"> }> {
    const maxLength = checkSequenceLength(maxSequenceLength, TOKENS);
    const encoded = await chatStates(this, prompts, { layers: [LAYER], thinking: THINKING, maxLength });
    const longest = Math.max(...encoded.map(({ length }) => length));
    const tokens = filledUp(longest);
    const width = this.textEncoder.config.hidden_size;
    const states = new Float32Array(encoded.length * tokens * width);
    const mask = new Float32Array(encoded.length * tokens);
    for (const [row, { states: of, length }] of encoded.entries()) {
      states.set(of[0]!.data.subarray(0, length * width), row * tokens * width);
      mask.fill(1, row * tokens, row * tokens + length);
    }
    return {
      encoderHiddenStates: tensor(states, [encoded.length, tokens, width]),
      encoderAttentionMask: tensor(mask, [encoded.length, tokens]),
    };
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    const { ids, length } = checkedChatIds(this.tokenizer, caption, { thinking: THINKING, maxLength: TOKENS });
    return [ids.slice(0, length)];
  }

  override encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    return this.encodePrompt(captions);
  }

  /** pos + g · (pos − neg) is neg + (1 + g) · (pos − neg). */
  protected override guidanceFactor(_: ZImageOptions, guidanceScale: number): number {
    return guidanceScale > 0 ? 1 + guidanceScale : 1;
  }

  protected override runOptions(plan: GenerationPlan, scheduler: Scheduler): RunOptions {
    return { ...super.runOptions(plan, scheduler), sigmas: evenSigmas(plan.steps) };
  }

  /** Captions that fill other multiples of 32 tokens have other positions, so that they are predicted apart. */
  protected override predictor(
    options: ZImageOptions,
    adapters: AdapterSelection,
  ): (inputs: DenoiserInputs) => Promise<StackPrediction> {
    return (inputs) =>
      predictByLength(inputs, (part, isWhole) => {
        if (!isWhole && Array.isArray(options.adapters)) {
          throw new ConfigError(
            `generate: adapters for single prompts need prompts that fill the same multiple of ${TOKEN_UNIT} tokens, ` +
              "negative ones included; draw them apart.",
          );
        }
        return adapters.predict(part);
      });
  }

  protected override async encodeConditions(
    options: ZImageOptions,
    { prompts, negativePrompts, clipSkip, guides }: GenerationPlan,
  ): Promise<GuidedConditioning> {
    if (clipSkip > 0) throw new ConfigError("generate: clipSkip has no meaning for Z-Image.");
    if (negativePrompts && !guides) {
      throw new ConfigError("generate: negativePrompt acts by guidance; guidanceScale must be above 0 for it.");
    }
    const conditional = await this.encodePrompt(prompts, options);
    if (!guides) return { conditional };
    const unconditional = await this.encodePrompt(negativePrompts ?? prompts.map(() => ""), options);
    const tokens = Math.max(...[conditional, unconditional].map(({ encoderAttentionMask: { shape } }) => shape[1]!));
    return { conditional: tokenRows(conditional, tokens), unconditional: tokenRows(unconditional, tokens) };
  }
}

function checkFit({ transformer, vae, textEncoder, tokenizer }: ZImageComponents): void {
  checkLatents(NAME, transformer.latentChannels, vae);
  const { hidden_size: hidden } = textEncoder.config;
  const { cap_feat_dim: features } = transformer.config;
  if (features !== hidden) {
    refuseParts(
      NAME,
      `the transformer's cap_feat_dim must be the text encoder's hidden_size; got ${features} and ${hidden}`,
    );
  }
  checkVocabulary(NAME, tokenizer, textEncoder);
}
