// StableDiffusion3Pipeline: Stable Diffusion 3 and 3.5, with two encoders of CLIP, and T5 where the folder has it. Reads no files
// itself.

import type { Conditioning } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { CLIPTextModelWithProjection } from "../../models/clip-text/clip-text-model-with-projection.js";
import { CLIPTokenizer } from "../../models/clip-tokenizer/clip-tokenizer.js";
import { SD3Transformer2DModel } from "../../models/sd3-transformer-2d/sd3-transformer-2d.js";
import { T5EncoderModel } from "../../models/t5-text/t5-encoder-model.js";
import { T5Tokenizer } from "../../models/t5-tokenizer/t5-tokenizer.js";
import { Tensor, zeros } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { FlowPipeline } from "../flow-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import { type GenerationPlan, promptsLike } from "../generation-plan.js";
import { type FlowComponents, loadFlowComponents } from "../load-flow-components.js";
import { describePipeline } from "../pipeline-folder.js";
import { checkLatents, checkTokenizer, refuseParts } from "../stable-diffusion/component-checks.js";
import type { PipelineOptions } from "../stable-diffusion/load-components.js";
import { checkedT5Ids, checkSequenceLength, checkT5Vocabulary, checkT5Width, encodeWithT5 } from "../t5-encoding.js";
import { checkedClipIds, concatFeatures, encodePrompts } from "../text-encoding.js";

const NAME = "StableDiffusion3Pipeline";
/** Tokens of T5 unless told otherwise, and the most that the model was trained with. */
const T5_TOKENS = 256;
const MAX_T5_TOKENS = 512;

/** Options of Stable Diffusion 3's `generate`. */
export interface StableDiffusion3Options extends GenerateOptions {
  /** For the second encoder of CLIP. Default, and where empty: `prompt`. */
  prompt2?: string | readonly string[];
  /** For T5. Default, and where empty: `prompt`. */
  prompt3?: string | readonly string[];
  /** Default, and where empty: `negativePrompt`. */
  negativePrompt2?: string | readonly string[];
  /** Default, and where empty: `negativePrompt`. */
  negativePrompt3?: string | readonly string[];
  /** Tokens of T5, up to 512; default 256. A longer prompt is refused. */
  maxSequenceLength?: number;
}

/** The parts of a {@link StableDiffusion3Pipeline}. */
export interface StableDiffusion3Components extends FlowComponents<SD3Transformer2DModel> {
  textEncoder: CLIPTextModelWithProjection;
  tokenizer: CLIPTokenizer;
  textEncoder2: CLIPTextModelWithProjection;
  tokenizer2: CLIPTokenizer;
  /** Without it, zeros stand for its states: less is understood of long prompts. */
  textEncoder3?: T5EncoderModel | undefined;
  tokenizer3?: T5Tokenizer | undefined;
}

/** What texts the encoders get, where those differ. */
export interface StableDiffusion3Texts {
  prompts2?: readonly string[] | undefined;
  prompts3?: readonly string[] | undefined;
  /** Takes CLIP's states this many layers earlier. Default 0. */
  clipSkip?: number;
  /** Default 256. */
  maxSequenceLength?: number;
  /** On CLIP; default: those in use. */
  adapters?: AdapterSelection;
}

/**
 * Stable Diffusion 3 and 3.5.
 *
 * B batch, T tokens: CLIP's (77), then T5's.
 *
 * @see Esser et al. 2024, arXiv:2403.03206
 */
export class StableDiffusion3Pipeline extends FlowPipeline<StableDiffusion3Options, SD3Transformer2DModel> {
  readonly textEncoder: CLIPTextModelWithProjection;
  readonly tokenizer: CLIPTokenizer;
  readonly textEncoder2: CLIPTextModelWithProjection;
  readonly tokenizer2: CLIPTokenizer;
  readonly textEncoder3: T5EncoderModel | undefined;
  readonly tokenizer3: T5Tokenizer | undefined;

  /** @throws {ConfigError} If a part is missing, or the parts do not fit each other. */
  constructor(components: StableDiffusion3Components) {
    checkFit(components);
    const { transformer: denoiser, vae, scheduler } = components;
    const { sample_size: side } = denoiser.config;
    super({ denoiser, vae, scheduler }, { latentSize: [side, side], guidanceScale: 7, strength: 0.6 });
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
    this.textEncoder2 = components.textEncoder2;
    this.tokenizer2 = components.tokenizer2;
    this.textEncoder3 = components.textEncoder3;
    this.tokenizer3 = components.tokenizer3;
  }

  override get textEncoders(): readonly CLIPTextModelWithProjection[] {
    return [this.textEncoder, this.textEncoder2];
  }

  override get tokenizers(): readonly CLIPTokenizer[] {
    return [this.tokenizer, this.tokenizer2];
  }

  protected override get otherEncoders(): readonly T5EncoderModel[] {
    return this.textEncoder3 ? [this.textEncoder3] : [];
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout.
   *
   * @param dir - The folder with `model_index.json`; where there is no such folder, an id on the hub (owner/name).
   * @throws {HubError} If the model cannot be had from the hub.
   * @throws {FormatError} If a file or part is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<StableDiffusion3Pipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, tokenizerSource, components: has } = description;
    const of = (subfolder: string) => ({ ...options, config: description.config, subfolder });
    const tokenizer = await CLIPTokenizer.fromPretrained(tokenizerSource);
    const tokenizer2 = await CLIPTokenizer.fromPretrained(tokenizerSource, { subfolder: "tokenizer_2" });
    const textEncoder = await CLIPTextModelWithProjection.fromPretrained(source, of("text_encoder"));
    const textEncoder2 = await CLIPTextModelWithProjection.fromPretrained(source, of("text_encoder_2"));
    const t5 = has.has("text_encoder_3") && {
      tokenizer3: await T5Tokenizer.fromPretrained(tokenizerSource, { subfolder: "tokenizer_3" }),
      textEncoder3: await T5EncoderModel.fromPretrained(source, of("text_encoder_3")),
    };
    const components = await loadFlowComponents(description, options, SD3Transformer2DModel);
    return new StableDiffusion3Pipeline({ ...components, textEncoder, tokenizer, textEncoder2, tokenizer2, ...t5 });
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models.
   *
   * @param options.config - Required: the folder or hub id of a pipeline of the family, for all that is not in the file.
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that no model uses.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<StableDiffusion3Pipeline> {
    return StableDiffusion3Pipeline.fromPretrained(path, options);
  }

  /**
   * What the transformer is told of prompts, for `transformer.predict`: CLIP's next to last states side by side, filled up with
   * zeros to T5's width, then T5's states; and both pooled texts. Of a prompt that is too long for CLIP, CLIP reads the
   * beginning, where T5 reads the whole.
   *
   * @returns `encoderHiddenStates` `[B, T, D]` and `pooledProjections` `[B, P]`.
   * @throws {ConfigError} If a prompt is longer than the last tokenizer allows; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    {
      prompts2 = prompts,
      prompts3 = prompts,
      clipSkip = 0,
      maxSequenceLength = T5_TOKENS,
      adapters = this.selectAdapters(),
    }: StableDiffusion3Texts = {},
  ): Promise<{ encoderHiddenStates: Tensor<"float32">; pooledProjections: Tensor<"float32"> }> {
    const length = checkSequenceLength(maxSequenceLength, MAX_T5_TOKENS);
    const { joint_attention_dim: features } = this.denoiser.config;
    const { textEncoder3, tokenizer3 } = this;
    const t5 =
      textEncoder3 && tokenizer3
        ? await encodeWithT5({ tokenizer: tokenizer3, textEncoder: textEncoder3 }, prompts3, length)
        : zeros([prompts.length, length, features]);
    const options = { hiddenLayersFromEnd: clipSkip + 1, finalNorm: false, truncates: textEncoder3 !== undefined };
    const encoder2 = { tokenizer: this.tokenizer2, textEncoder: this.textEncoder2 };
    const first = await encodePrompts(this, prompts, { ...options, adapters: { selection: adapters, encoder: 0 } });
    const second = await encodePrompts(encoder2, prompts2, {
      ...options,
      adapters: { selection: adapters, encoder: 1 },
    });
    const clip = concatFeatures(first.states, second.states);
    return {
      encoderHiddenStates: concatTokens(widened(clip, features), t5),
      pooledProjections: concatFeatures(first.pooled, second.pooled),
    };
  }

  override get promptEncoders() {
    const { textEncoder: text_encoder, textEncoder2: text_encoder_2, textEncoder3: text_encoder_3 } = this;
    return { text_encoder, text_encoder_2, ...(text_encoder_3 && { text_encoder_3 }) };
  }

  override captionTokens(): number {
    return this.tokenizer.maxLength + T5_TOKENS;
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    const { tokenizer3 } = this;
    const clip = this.tokenizers.map((tokenizer) => checkedClipIds(tokenizer, caption, tokenizer3 !== undefined));
    return tokenizer3 ? [...clip, checkedT5Ids(tokenizer3, caption, T5_TOKENS)] : clip;
  }

  override encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    return this.encodePrompt(captions);
  }

  protected override async encodeConditions(
    options: StableDiffusion3Options,
    { prompts, negativePrompts, clipSkip, guides }: GenerationPlan,
    adapters: AdapterSelection,
  ): Promise<GuidedConditioning> {
    for (const name of ["negativePrompt2", "negativePrompt3"] as const) {
      if (options[name] === undefined || negativePrompts) continue;
      throw new ConfigError(`generate: ${name} needs a negativePrompt beside it.`);
    }
    const texts = (name: keyof StableDiffusion3Options) =>
      promptsLike(name, (options[name] as string | undefined) || undefined, prompts);
    const { maxSequenceLength } = options;
    const more = { ...(maxSequenceLength !== undefined && { maxSequenceLength }), clipSkip, adapters };
    const conditional = await this.encodePrompt(prompts, {
      ...{ prompts2: texts("prompt2"), prompts3: texts("prompt3") },
      ...more,
    });
    if (!guides) return { conditional };
    const unconditional = await this.encodePrompt(negativePrompts ?? prompts.map(() => ""), {
      ...{ prompts2: texts("negativePrompt2"), prompts3: texts("negativePrompt3") },
      ...more,
      clipSkip: 0,
    });
    return { conditional, unconditional };
  }
}

/** With zeros behind the features, so that there are as many as asked for. */
function widened(x: Tensor<"float32">, features: number): Tensor<"float32"> {
  const own = x.shape.at(-1)!;
  if (own === features) return x;
  const rows = x.size / own;
  const data = new Float32Array(rows * features);
  for (let row = 0; row < rows; row++) data.set(x.data.subarray(row * own, (row + 1) * own), row * features);
  return new Tensor("float32", [...x.shape.slice(0, -1), features], data);
}

/** The tokens of each row one after the other. */
function concatTokens(a: Tensor<"float32">, b: Tensor<"float32">): Tensor<"float32"> {
  const [batch, first, features] = a.shape as [number, number, number];
  const [left, right] = [a.size / batch, b.size / batch];
  const data = new Float32Array(a.size + b.size);
  for (let row = 0; row < batch; row++) {
    data.set(a.data.subarray(row * left, (row + 1) * left), row * (left + right));
    data.set(b.data.subarray(row * right, (row + 1) * right), row * (left + right) + left);
  }
  return new Tensor("float32", [batch, first + b.shape[1]!, features], data);
}

function checkFit(components: StableDiffusion3Components): void {
  const { transformer, vae, textEncoder, tokenizer, textEncoder2, tokenizer2, textEncoder3, tokenizer3 } = components;
  for (const key of ["textEncoder", "tokenizer", "textEncoder2", "tokenizer2"] as const) {
    if (!components[key]) refuseParts(NAME, `${key} is missing; Stable Diffusion 3 has two encoders of CLIP`);
  }
  if (!textEncoder3 !== !tokenizer3) refuseParts(NAME, "T5 needs its tokenizer, and its tokenizer T5");
  const { joint_attention_dim: features, pooled_projection_dim: pooled } = transformer.config;
  checkLatents(NAME, transformer.latentChannels, vae);
  const hidden = textEncoder.config.hidden_size + textEncoder2.config.hidden_size;
  if (hidden > features) {
    refuseParts(
      NAME,
      `the encoders of CLIP give ${hidden} features, the transformer's joint_attention_dim is ${features}`,
    );
  }
  if (textEncoder3) checkT5Width(NAME, textEncoder3, features);
  const projected = textEncoder.config.projection_dim + textEncoder2.config.projection_dim;
  if (projected !== pooled) {
    refuseParts(
      NAME,
      `the transformer's pooled_projection_dim must be the sum of both projection_dim; got ${pooled} and ${projected}`,
    );
  }
  checkTokenizer(NAME, tokenizer, textEncoder);
  checkTokenizer(NAME, tokenizer2, textEncoder2, "second ");
  if (tokenizer.maxLength !== tokenizer2.maxLength) {
    refuseParts(
      NAME,
      `both tokenizers of CLIP must give as many tokens; got ${tokenizer.maxLength} and ${tokenizer2.maxLength}`,
    );
  }
  if (textEncoder3 && tokenizer3) checkT5Vocabulary(NAME, tokenizer3, textEncoder3);
}
