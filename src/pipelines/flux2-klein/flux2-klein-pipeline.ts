// Flux2KleinPipeline: FLUX.2-klein, whose text encoder is a Qwen3. Reads no files itself. Images that a picture shall be like
// (editing) are not supported; a start image is.

import type { Conditioning } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { Flux2Transformer2DModel } from "../../models/flux2-transformer-2d/flux2-transformer-2d.js";
import { QwenTokenizer } from "../../models/qwen-tokenizer/qwen-tokenizer.js";
import { Qwen3Model } from "../../models/qwen3/qwen3-model.js";
import type { RunOptions, Scheduler } from "../../schedulers/index.js";
import { type Generator, randn } from "../../tensor/random.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { evenSigmas, FlowPipeline } from "../flow-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import type { GenerationPlan } from "../generation-plan.js";
import type { ImageWork } from "../image-latents.js";
import { imagesToLatents } from "../image-latents.js";
import { type FlowComponents, loadFlowComponents } from "../load-flow-components.js";
import { describePipeline } from "../pipeline-folder.js";
import { chatStates, checkedChatIds } from "../qwen-encoding.js";
import { checkLatents, checkVocabulary, refuseParts } from "../stable-diffusion/component-checks.js";
import type { PipelineOptions } from "../stable-diffusion/load-components.js";
import { checkSequenceLength } from "../t5-encoding.js";

const NAME = "Flux2KleinPipeline";
const TOKENS = 512;
/** Whose states the transformer was trained with, side by side. */
const LAYERS = [9, 18, 27] as const;
/** Of images of 1024 pixels. */
const LATENT_SIDE = 128;
const THINKING = false;

/** Options of FLUX.2-klein's `generate`. */
export interface Flux2KleinOptions extends GenerateOptions {
  /** Tokens, those of the chat and padding included, up to 512, the default. A longer prompt is refused. */
  maxSequenceLength?: number;
  /** The text encoder's layers that are taken. Default 9, 18 and 27, as the model was trained. */
  textEncoderOutLayers?: readonly number[];
}

/** The parts of a {@link Flux2KleinPipeline}. */
export interface Flux2KleinComponents extends FlowComponents<Flux2Transformer2DModel> {
  textEncoder: Qwen3Model;
  tokenizer: QwenTokenizer;
  /** Whether the model was distilled to few steps without guidance. Default false. */
  isDistilled?: boolean;
}

/**
 * FLUX.2-klein. Latents are the autoencoder's on their grid, normalized; noise is drawn for patches of 2×2, as diffusers does.
 *
 * B batch, T tokens.
 *
 * @see diffusers' Flux2KleinPipeline
 */
export class Flux2KleinPipeline extends FlowPipeline<Flux2KleinOptions, Flux2Transformer2DModel> {
  readonly textEncoder: Qwen3Model;
  readonly tokenizer: QwenTokenizer;
  readonly isDistilled: boolean;

  /** @throws {ConfigError} If a part is missing, or the parts do not fit each other. */
  constructor(components: Flux2KleinComponents) {
    checkFit(components);
    const { transformer: denoiser, vae, scheduler, isDistilled = false } = components;
    super(
      { denoiser, vae, scheduler },
      { latentSize: [LATENT_SIDE, LATENT_SIDE], guidanceScale: isDistilled ? 1 : 4, strength: 0.8 },
    );
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
    this.isDistilled = isDistilled;
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

  override captionTokens(): number {
    return TOKENS;
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
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<Flux2KleinPipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, tokenizerSource, config, isDistilled } = description;
    const tokenizer = await QwenTokenizer.fromPretrained(tokenizerSource);
    const textEncoder = await Qwen3Model.fromPretrained(source, { ...options, config, subfolder: "text_encoder" });
    const components = await loadFlowComponents(description, options, Flux2Transformer2DModel);
    return new Flux2KleinPipeline({ ...components, textEncoder, tokenizer, isDistilled });
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models.
   *
   * @param options.config - Required: the folder or hub id of a pipeline of the family, for all that is not in the file.
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that no model uses.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<Flux2KleinPipeline> {
    return Flux2KleinPipeline.fromPretrained(path, options);
  }

  /**
   * What the transformer is told of prompts, for `transformer.predict`: hidden states of several of the encoder's layers side
   * by side, padding's included.
   *
   * @returns `encoderHiddenStates` `[B, T, layers · hidden_size]`.
   * @throws {ConfigError} If a prompt is longer than T tokens; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    {
      maxSequenceLength = TOKENS,
      textEncoderOutLayers: layers = LAYERS,
    }: Pick<Flux2KleinOptions, "maxSequenceLength" | "textEncoderOutLayers"> = {},
  ): Promise<{ encoderHiddenStates: Tensor<"float32"> }> {
    const maxLength = checkSequenceLength(maxSequenceLength, TOKENS);
    const width = layers.length * this.textEncoder.config.hidden_size;
    const { joint_attention_dim: features } = this.denoiser.config;
    if (width !== features) {
      throw new ConfigError(
        `generate: textEncoderOutLayers must be ${features / this.textEncoder.config.hidden_size} layers, whose states ` +
          `together are the transformer's joint_attention_dim=${features}; got ${layers.length}.`,
      );
    }
    const encoded = await chatStates(this, prompts, { layers, thinking: THINKING, maxLength });
    const data = new Float32Array(encoded.length * maxLength * width);
    for (const [row, { states }] of encoded.entries()) {
      for (const [layer, state] of states.entries()) {
        const own = width / layers.length;
        for (let token = 0; token < maxLength; token++) {
          const values = state.data.subarray(token * own, (token + 1) * own);
          data.set(values, (row * maxLength + token) * width + layer * own);
        }
      }
    }
    return { encoderHiddenStates: tensor(data, [encoded.length, maxLength, width]) };
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    return [checkedChatIds(this.tokenizer, caption, { thinking: THINKING, maxLength: TOKENS }).ids];
  }

  override encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    return this.encodePrompt(captions);
  }

  protected override guidanceFactor({ negativePrompt }: Flux2KleinOptions, guidanceScale: number): number {
    const factor = this.isDistilled ? 1 : guidanceScale;
    if (negativePrompt === undefined || factor > 1) return factor;
    throw new ConfigError(
      `generate: negativePrompt acts by guidance, and ${this.isDistilled ? "this model is distilled and has none" : "guidanceScale must be above 1 for it"}.`,
    );
  }

  /** Noise levels move by a line through measured points, which follows tokens and steps. */
  protected override runOptions(plan: GenerationPlan, scheduler: Scheduler): RunOptions {
    super.runOptions(plan, scheduler);
    const [, , height, width] = plan.latentShape;
    return { mu: empiricalMu((height / 2) * (width / 2), plan.steps), sigmas: evenSigmas(plan.steps) };
  }

  protected override drawNoise(shape: GenerationPlan["latentShape"], generator: Generator): Tensor<"float32"> {
    const [count, channels, height, width] = shape;
    return unpatched(randn([count, 4 * channels, height / 2, width / 2], { generator }));
  }

  /** The mean of the autoencoder's distribution, as diffusers takes it for this family. */
  protected override encodeImages(
    images: Tensor<"float32">,
    _: Generator,
    work: ImageWork,
  ): Promise<Tensor<"float32">> {
    return imagesToLatents(this.vae, images, undefined, work);
  }

  protected override async encodeConditions(
    options: Flux2KleinOptions,
    { prompts, negativePrompts, clipSkip, guides }: GenerationPlan,
    _adapters: AdapterSelection,
  ): Promise<GuidedConditioning> {
    if (clipSkip > 0) throw new ConfigError("generate: clipSkip has no meaning for FLUX.2; see textEncoderOutLayers.");
    const conditional = await this.encodePrompt(prompts, options);
    if (!guides) return { conditional };
    return { conditional, unconditional: await this.encodePrompt(negativePrompts ?? prompts.map(() => ""), options) };
  }
}

/** Lines through measured shifts at 10 and at 200 steps, by the number of tokens N. @see diffusers' compute_empirical_mu */
function empiricalMu(tokens: number, steps: number): number {
  const at200 = 0.00016927 * tokens + 0.45666666;
  if (tokens > 4300) return at200;
  const at10 = 8.73809524e-5 * tokens + 1.89833333;
  const perStep = (at200 - at10) / 190;
  return perStep * steps + at200 - 200 * perStep;
}

/** `[B, 4C, h, w]` to `[B, C, 2h, 2w]`: channel 4c + 2·row + column of a patch. */
function unpatched({ shape, data }: Tensor<"float32">): Tensor<"float32"> {
  const [count, packed, height, width] = shape as [number, number, number, number];
  const result = new Float32Array(data.length);
  for (let plane = 0; plane < count * packed; plane++) {
    const [to, place] = [Math.floor(plane / 4), plane % 4];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const row = to * 2 * height + 2 * y + (place >> 1);
        result[row * 2 * width + 2 * x + (place & 1)] = data[(plane * height + y) * width + x]!;
      }
    }
  }
  return new Tensor("float32", [count, packed / 4, 2 * height, 2 * width], result);
}

function checkFit({ transformer, vae, textEncoder, tokenizer }: Flux2KleinComponents): void {
  checkLatents(NAME, transformer.latentChannels, vae);
  const { hidden_size: hidden } = textEncoder.config;
  const { joint_attention_dim: features } = transformer.config;
  if (features % hidden !== 0) {
    refuseParts(
      NAME,
      `the transformer's joint_attention_dim must be a multiple of the text encoder's hidden_size; got ${features} and ${hidden}`,
    );
  }
  checkVocabulary(NAME, tokenizer, textEncoder);
}
