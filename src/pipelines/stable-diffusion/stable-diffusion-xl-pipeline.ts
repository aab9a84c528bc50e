// StableDiffusionXLPipeline: SDXL's base model, with or without FeRA adapters. Reads no files itself. The refiner, which
// has one text encoder and a score in place of the target size, is not supported.

import type { Conditioning } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import { CLIPTextModelWithProjection } from "../../models/clip-text/clip-text-model-with-projection.js";
import { CLIPTokenizer } from "../../models/clip-tokenizer/clip-tokenizer.js";
import type { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import { repeatRows } from "../../tensor/rows.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { DiffusionPipeline } from "../diffusion-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import { type GenerationPlan, promptsLike } from "../generation-plan.js";
import { describePipeline } from "../pipeline-folder.js";
import { checkedClipIds, concatFeatures, encodePrompts } from "../text-encoding.js";
import { checkAutoencoder, checkTokenizer, refuseParts } from "./component-checks.js";
import { loadComponents, type PipelineOptions } from "./load-components.js";
import { latentSizeOf, type UNetComponents } from "./unet-components.js";

const NAME = "StableDiffusionXLPipeline";
/** Original size, crop and target size, two numbers each. */
const TIME_IDS = 6;

/** Two numbers of pixels: height and width, or top and left. */
export type PixelPair = readonly [number, number];

/**
 * Options of SDXL's `generate`. Sizes are `[height, width]`.
 *
 * The model was told the size of each training image and how it was cropped; these options say what it is told now.
 */
export interface StableDiffusionXLOptions extends GenerateOptions {
  /** For the second text encoder. Default, and where empty: `prompt`. */
  prompt2?: string | readonly string[];
  /** For the second text encoder, where there is a `negativePrompt`; default, and where empty: that one. */
  negativePrompt2?: string | readonly string[];
  /** Size before cropping; small ones give blurred images. Default: the image's size. */
  originalSize?: PixelPair;
  /** Top and left corner of the crop; `[0, 0]` (default) gives centred images. */
  cropsCoordsTopLeft?: PixelPair;
  /** Default: the image's size. */
  targetSize?: PixelPair;
  /** What to be guided away from; each default is the one without "negative". */
  negativeOriginalSize?: PixelPair;
  negativeCropsCoordsTopLeft?: PixelPair;
  negativeTargetSize?: PixelPair;
}

/** The parts of a {@link StableDiffusionXLPipeline}. */
export interface StableDiffusionXLComponents extends UNetComponents {
  textEncoder: CLIPTextModel;
  tokenizer: CLIPTokenizer;
  textEncoder2: CLIPTextModelWithProjection;
  tokenizer2: CLIPTokenizer;
  /** Whether zeros stand for the text where there is no negative prompt, as the model was trained. Default true. */
  forceZerosForEmptyPrompt?: boolean;
}

/** Encoded prompts. B batch, L tokens, D features of both encoders together, P of the pooled text. */
export interface XLPromptStates {
  /** `[B, L, D]`. */
  encoderHiddenStates: Tensor<"float32">;
  /** `[B, P]`. */
  textEmbeds: Tensor<"float32">;
}

/**
 * Stable Diffusion XL with two text encoders.
 *
 * @see Podell et al. 2023, arXiv:2307.01952
 */
export class StableDiffusionXLPipeline extends DiffusionPipeline<StableDiffusionXLOptions, UNet2DConditionModel> {
  readonly textEncoder: CLIPTextModel;
  readonly tokenizer: CLIPTokenizer;
  readonly textEncoder2: CLIPTextModelWithProjection;
  readonly tokenizer2: CLIPTokenizer;
  readonly forceZerosForEmptyPrompt: boolean;

  /** @throws {ConfigError} If a part is missing, or the parts do not fit each other. */
  constructor(components: StableDiffusionXLComponents) {
    checkFit(components);
    const { unet: denoiser, vae, scheduler } = components;
    const latentSize = latentSizeOf(denoiser, 128);
    super({ denoiser, vae, scheduler }, { latentSize, guidanceScale: 5, strength: 0.3 });
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
    this.textEncoder2 = components.textEncoder2;
    this.tokenizer2 = components.tokenizer2;
    this.forceZerosForEmptyPrompt = components.forceZerosForEmptyPrompt ?? true;
  }

  get unet(): UNet2DConditionModel {
    return this.denoiser;
  }

  override get textEncoders(): readonly CLIPTextModel[] {
    return [this.textEncoder, this.textEncoder2];
  }

  override get tokenizers(): readonly CLIPTokenizer[] {
    return [this.tokenizer, this.tokenizer2];
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout.
   *
   * @param dir - The folder with `model_index.json`; where there is no such folder, an id on the hub (owner/name).
   * @throws {HubError} If the model cannot be had from the hub.
   * @throws {FormatError} If a file or part is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<StableDiffusionXLPipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, config, tokenizerSource } = description;
    const of = (subfolder: string) => ({ ...options, config, subfolder });
    const tokenizer = await CLIPTokenizer.fromPretrained(tokenizerSource);
    const tokenizer2 = await CLIPTokenizer.fromPretrained(tokenizerSource, { subfolder: "tokenizer_2" });
    const textEncoder = await CLIPTextModel.fromPretrained(source, of("text_encoder"));
    const textEncoder2 = await CLIPTextModelWithProjection.fromPretrained(source, of("text_encoder_2"));
    const components = await loadComponents(description, options);
    const { forceZerosForEmptyPrompt } = description;
    return new StableDiffusionXLPipeline({
      ...components,
      ...{ textEncoder, tokenizer, textEncoder2, tokenizer2, forceZerosForEmptyPrompt },
    });
  }

  /**
   * Loads a checkpoint in a single file, such as `sd_xl_base_1.0.safetensors`.
   *
   * @param options - `config` must name a pipeline's folder or hub id, for configuration and tokenizers.
   * @throws {FormatError} If the file is no such checkpoint.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<StableDiffusionXLPipeline> {
    return StableDiffusionXLPipeline.fromPretrained(path, options);
  }

  /**
   * The text states of prompts: the next to last hidden states of both encoders side by side, and the pooled text of the
   * second, for `unet.predict`.
   *
   * @param options - What else they depend on.
   * @param options.prompts2 - For the second encoder, one per prompt; default `prompts`.
   * @param options.clipSkip - Takes the states this many layers earlier still. Default 0.
   * @param options.adapters - On the text encoders; default: those in use.
   * @throws {ConfigError} If a prompt is longer than a tokenizer allows; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    {
      prompts2 = prompts,
      clipSkip = 0,
      adapters = this.selectAdapters(),
    }: { prompts2?: readonly string[]; clipSkip?: number; adapters?: AdapterSelection } = {},
  ): Promise<XLPromptStates> {
    const options = { hiddenLayersFromEnd: clipSkip + 1, finalNorm: false };
    const encoder2 = { tokenizer: this.tokenizer2, textEncoder: this.textEncoder2 };
    const first = await encodePrompts(this, prompts, { ...options, adapters: { selection: adapters, encoder: 0 } });
    const second = await encodePrompts(encoder2, prompts2, {
      ...options,
      adapters: { selection: adapters, encoder: 1 },
    });
    return { encoderHiddenStates: concatFeatures(first.states, second.states), textEmbeds: second.pooled };
  }

  override get promptEncoders() {
    return { text_encoder: this.textEncoder, text_encoder_2: this.textEncoder2 };
  }

  override captionTokens(): number {
    return this.tokenizer.maxLength;
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    return this.tokenizers.map((tokenizer) => checkedClipIds(tokenizer, caption));
  }

  /** Without the sizes, which do not follow from captions. */
  override async encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    return { ...(await this.encodePrompt(captions)) };
  }

  protected override async encodeConditions(
    options: StableDiffusionXLOptions,
    plan: GenerationPlan,
    adapters: AdapterSelection,
  ): Promise<GuidedConditioning> {
    const { prompts, negativePrompts, clipSkip, guides } = plan;
    if (options.negativePrompt2 !== undefined && negativePrompts === undefined) {
      throw new ConfigError("generate: negativePrompt2 needs a negativePrompt beside it.");
    }
    const times = timeIds(options, plan, this.latentScale);
    const prompts2 = promptsLike("prompt2", options.prompt2 || undefined, prompts);
    const negatives2 = promptsLike("negativePrompt2", options.negativePrompt2 || undefined, prompts);
    const states = await this.encodePrompt(prompts, { prompts2, clipSkip, adapters });
    const conditional = conditions(states, times.positive);
    if (!guides) return { conditional };
    if (!negativePrompts && this.forceZerosForEmptyPrompt) {
      const { encoderHiddenStates, textEmbeds } = states;
      const nothing = { encoderHiddenStates: zeros(encoderHiddenStates.shape), textEmbeds: zeros(textEmbeds.shape) };
      return { conditional, unconditional: conditions(nothing, times.negative) };
    }
    const texts = negativePrompts ?? prompts.map(() => "");
    const negative = await this.encodePrompt(texts, { prompts2: negatives2, adapters });
    return { conditional, unconditional: conditions(negative, times.negative) };
  }
}

function conditions({ encoderHiddenStates, textEmbeds }: XLPromptStates, times: readonly number[]): Conditioning {
  const row = tensor(Float32Array.from(times), [1, TIME_IDS]);
  return { encoderHiddenStates, textEmbeds, timeIds: repeatRows(row, textEmbeds.shape[0]!) };
}

/** Original size, crop, target size. */
function timeIds(options: StableDiffusionXLOptions, plan: GenerationPlan, scale: number) {
  const [, , height, width] = plan.latentShape;
  const size = [height * scale, width * scale] as const;
  const pair = (name: keyof StableDiffusionXLOptions, fallback: PixelPair): PixelPair => {
    const given = options[name] ?? fallback;
    if (Array.isArray(given) && given.length === 2 && given.every(Number.isFinite))
      return given as unknown as PixelPair;
    throw new ConfigError(`generate: ${name} must be two numbers of pixels; got ${JSON.stringify(given)}.`);
  };
  const original = pair("originalSize", size);
  const crop = pair("cropsCoordsTopLeft", [0, 0]);
  const target = pair("targetSize", size);
  return {
    positive: [...original, ...crop, ...target],
    negative: [
      ...pair("negativeOriginalSize", original),
      ...pair("negativeCropsCoordsTopLeft", crop),
      ...pair("negativeTargetSize", target),
    ],
  };
}

function checkFit(components: StableDiffusionXLComponents): void {
  const { unet, textEncoder, tokenizer, textEncoder2, tokenizer2 } = components;
  for (const key of ["textEncoder", "tokenizer", "textEncoder2", "tokenizer2"] as const) {
    if (!components[key]) refuseParts(NAME, `${key} is missing; SDXL has two text encoders, each with its tokenizer`);
  }
  const { config } = unet;
  if (config.addition_embed_type !== "text_time") {
    refuseParts(
      NAME,
      `addition_embed_type must be "text_time"; the unet has ${config.addition_embed_type} (StableDiffusionPipeline)`,
    );
  }
  checkAutoencoder(NAME, components);
  const hidden = [textEncoder.config.hidden_size, textEncoder2.config.hidden_size] as const;
  if (config.cross_attention_dim !== hidden[0] + hidden[1]) {
    refuseParts(
      NAME,
      `the unet's cross_attention_dim must be the sum of both text encoders' hidden_size; ` +
        `got ${config.cross_attention_dim}, ${hidden[0]} and ${hidden[1]}`,
    );
  }
  const pooled = config.projection_class_embeddings_input_dim! - TIME_IDS * config.addition_time_embed_dim!;
  if (pooled !== textEncoder2.config.projection_dim) {
    refuseParts(
      NAME,
      `the unet takes ${pooled} features of pooled text (projection_class_embeddings_input_dim − 6 · ` +
        `addition_time_embed_dim), the second text encoder's projection_dim is ${textEncoder2.config.projection_dim}`,
    );
  }
  checkTokenizer(NAME, tokenizer, textEncoder);
  checkTokenizer(NAME, tokenizer2, textEncoder2, "second ");
  if (tokenizer.maxLength !== tokenizer2.maxLength) {
    refuseParts(
      NAME,
      `both tokenizers must give as many tokens; got ${tokenizer.maxLength} and ${tokenizer2.maxLength}`,
    );
  }
}
