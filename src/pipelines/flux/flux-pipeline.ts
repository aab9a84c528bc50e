// FluxPipeline: FLUX.1, dev and schnell, with CLIP's pooled text and T5's states. Reads no files itself.

import type { Conditioning } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import { CLIPTokenizer } from "../../models/clip-tokenizer/clip-tokenizer.js";
import { FluxTransformer2DModel } from "../../models/flux-transformer-2d/flux-transformer-2d.js";
import { T5EncoderModel } from "../../models/t5-text/t5-encoder-model.js";
import { T5Tokenizer } from "../../models/t5-tokenizer/t5-tokenizer.js";
import type { RunOptions, Scheduler } from "../../schedulers/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { evenSigmas, FlowPipeline } from "../flow-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import { type GenerationPlan, promptsLike } from "../generation-plan.js";
import { type FlowComponents, loadFlowComponents } from "../load-flow-components.js";
import { describePipeline } from "../pipeline-folder.js";
import { checkLatents, checkTokenizer, refuseParts } from "../stable-diffusion/component-checks.js";
import type { PipelineOptions } from "../stable-diffusion/load-components.js";
import { checkedT5Ids, checkSequenceLength, checkT5Vocabulary, checkT5Width, encodeWithT5 } from "../t5-encoding.js";
import { checkedClipIds, encodePrompts } from "../text-encoding.js";

const NAME = "FluxPipeline";
const T5_TOKENS = 512;
/** Of images of 1024 pixels. */
const LATENT_SIDE = 128;
/** The scale that a distilled model is told in training, where it is told any: no more than the caption says. */
const TRAINED_GUIDANCE = 1;

/** Options of FLUX.1's `generate`. */
export interface FluxOptions extends GenerateOptions {
  /** For T5. Default, and where empty: `prompt`. */
  prompt2?: string | readonly string[];
  /** Default, and where empty: `negativePrompt`. */
  negativePrompt2?: string | readonly string[];
  /**
   * Guidance by a second prediction, away from `negativePrompt`; 1 (default) is without, at half the work. `guidanceScale` is
   * what FLUX.1-dev is told as an input; schnell takes none.
   */
  trueCfgScale?: number;
  /** Tokens of T5, up to 512, the default; schnell was trained with 256. A longer prompt is refused. */
  maxSequenceLength?: number;
}

/** The parts of a {@link FluxPipeline}. */
export interface FluxComponents extends FlowComponents<FluxTransformer2DModel> {
  textEncoder: CLIPTextModel;
  tokenizer: CLIPTokenizer;
  textEncoder2: T5EncoderModel;
  tokenizer2: T5Tokenizer;
}

/** What texts the encoders get, where those differ. */
export interface FluxTexts {
  prompts2?: readonly string[] | undefined;
  /** Default 512. */
  maxSequenceLength?: number;
  /** On CLIP; default: those in use. */
  adapters?: AdapterSelection;
}

/**
 * FLUX.1.
 *
 * B batch, T tokens of T5.
 *
 * @see diffusers' FluxPipeline
 */
export class FluxPipeline extends FlowPipeline<FluxOptions, FluxTransformer2DModel> {
  readonly textEncoder: CLIPTextModel;
  readonly tokenizer: CLIPTokenizer;
  readonly textEncoder2: T5EncoderModel;
  readonly tokenizer2: T5Tokenizer;

  /** @throws {ConfigError} If a part is missing, or the parts do not fit each other. */
  constructor(components: FluxComponents) {
    checkFit(components);
    const { transformer: denoiser, vae, scheduler } = components;
    super({ denoiser, vae, scheduler }, { latentSize: [LATENT_SIDE, LATENT_SIDE], guidanceScale: 3.5, strength: 0.6 });
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
    this.textEncoder2 = components.textEncoder2;
    this.tokenizer2 = components.tokenizer2;
  }

  override get textEncoders(): readonly CLIPTextModel[] {
    return [this.textEncoder];
  }

  override get tokenizers(): readonly CLIPTokenizer[] {
    return [this.tokenizer];
  }

  override get promptEncoders() {
    return { text_encoder: this.textEncoder, text_encoder_2: this.textEncoder2 };
  }

  override captionTokens(): number {
    return T5_TOKENS;
  }

  protected override get otherEncoders(): readonly T5EncoderModel[] {
    return [this.textEncoder2];
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout.
   *
   * @param dir - The folder with `model_index.json`; where there is no such folder, an id on the hub (owner/name).
   * @throws {HubError} If the model cannot be had from the hub.
   * @throws {FormatError} If a file or part is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<FluxPipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, tokenizerSource } = description;
    const of = (subfolder: string) => ({ ...options, config: description.config, subfolder });
    const tokenizer = await CLIPTokenizer.fromPretrained(tokenizerSource);
    const tokenizer2 = await T5Tokenizer.fromPretrained(tokenizerSource, { subfolder: "tokenizer_2" });
    const textEncoder = await CLIPTextModel.fromPretrained(source, of("text_encoder"));
    const textEncoder2 = await T5EncoderModel.fromPretrained(source, of("text_encoder_2"));
    const components = await loadFlowComponents(description, options, FluxTransformer2DModel);
    return new FluxPipeline({ ...components, textEncoder, tokenizer, textEncoder2, tokenizer2 });
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models.
   *
   * @param options.config - Required: the folder or hub id of a pipeline of the family, for all that is not in the file.
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that no model uses.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<FluxPipeline> {
    return FluxPipeline.fromPretrained(path, options);
  }

  /**
   * What the transformer is told of prompts, for `transformer.predict`: T5's states, and CLIP's pooled text, for which CLIP
   * reads the beginning of a prompt that is too long for it.
   *
   * @returns `encoderHiddenStates` `[B, T, D]` and `pooledProjections` `[B, P]`.
   * @throws {ConfigError} If a prompt is longer than T5 allows; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    { prompts2 = prompts, maxSequenceLength = T5_TOKENS, adapters = this.selectAdapters() }: FluxTexts = {},
  ): Promise<{ encoderHiddenStates: Tensor<"float32">; pooledProjections: Tensor<"float32"> }> {
    const length = checkSequenceLength(maxSequenceLength, T5_TOKENS);
    const t5 = { tokenizer: this.tokenizer2, textEncoder: this.textEncoder2 };
    const encoderHiddenStates = await encodeWithT5(t5, prompts2, length);
    const { pooled } = await encodePrompts(this, prompts, {
      truncates: true,
      adapters: { selection: adapters, encoder: 0 },
    });
    return { encoderHiddenStates, pooledProjections: pooled };
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    return [checkedClipIds(this.tokenizer, caption, true), checkedT5Ids(this.tokenizer2, caption, T5_TOKENS)];
  }

  /** A model that takes a guidance scale is told 1, as the trainers of dev do. */
  override async encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    const guidance = tensor(new Float32Array(captions.length).fill(TRAINED_GUIDANCE), [captions.length]);
    const told = await this.encodePrompt(captions);
    return this.denoiser.config.guidance_embeds ? { ...told, guidance } : told;
  }

  /** @throws {ConfigError} If a negative prompt is given without guidance that it acts on. */
  protected override guidanceFactor({ trueCfgScale = 1, negativePrompt }: FluxOptions): number {
    if (!Number.isFinite(trueCfgScale)) {
      throw new ConfigError(`generate: trueCfgScale must be a number; got ${trueCfgScale}.`);
    }
    if (negativePrompt !== undefined && trueCfgScale <= 1) {
      throw new ConfigError("generate: negativePrompt needs a trueCfgScale above 1: FLUX.1 is guided by it alone.");
    }
    if (negativePrompt === undefined && trueCfgScale > 1) {
      throw new ConfigError('generate: trueCfgScale needs a negativePrompt, "" at least.');
    }
    return trueCfgScale;
  }

  protected override runOptions(plan: GenerationPlan, scheduler: Scheduler): RunOptions {
    return { ...super.runOptions(plan, scheduler), sigmas: evenSigmas(plan.steps) };
  }

  protected override async encodeConditions(
    options: FluxOptions,
    { prompts, negativePrompts, clipSkip, guides }: GenerationPlan,
    adapters: AdapterSelection,
  ): Promise<GuidedConditioning> {
    if (clipSkip > 0)
      throw new ConfigError("generate: clipSkip has no meaning for FLUX.1, which takes CLIP's pooled text.");
    if (options.negativePrompt2 !== undefined && !negativePrompts) {
      throw new ConfigError("generate: negativePrompt2 needs a negativePrompt beside it.");
    }
    const texts = (name: "prompt2" | "negativePrompt2") => promptsLike(name, options[name] || undefined, prompts);
    const { maxSequenceLength } = options;
    const more = { ...(maxSequenceLength !== undefined && { maxSequenceLength }), adapters };
    const conditional = await this.encodePrompt(prompts, { prompts2: texts("prompt2"), ...more });
    if (!guides || !negativePrompts) return { conditional };
    const unconditional = await this.encodePrompt(negativePrompts, { prompts2: texts("negativePrompt2"), ...more });
    return { conditional, unconditional };
  }
}

function checkFit({ transformer, vae, textEncoder, tokenizer, textEncoder2, tokenizer2 }: FluxComponents): void {
  const { joint_attention_dim: features, pooled_projection_dim: pooled } = transformer.config;
  checkLatents(NAME, transformer.latentChannels, vae);
  checkT5Width(NAME, textEncoder2, features);
  if (textEncoder.config.hidden_size !== pooled) {
    refuseParts(
      NAME,
      `CLIP's hidden_size must be the transformer's pooled_projection_dim; got ${textEncoder.config.hidden_size} and ${pooled}`,
    );
  }
  checkTokenizer(NAME, tokenizer, textEncoder);
  checkT5Vocabulary(NAME, tokenizer2, textEncoder2);
}
