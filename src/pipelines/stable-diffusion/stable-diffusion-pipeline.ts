// StableDiffusionPipeline: Stable Diffusion 1.x and 2.x, with or without FeRA adapters. Reads no files itself.

import type { Conditioning } from "../../diffusion/index.js";
import { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import { CLIPTokenizer } from "../../models/clip-tokenizer/clip-tokenizer.js";
import type { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { AdapterSelection } from "../adapter-set.js";
import type { GuidedConditioning } from "../denoise.js";
import { DiffusionPipeline } from "../diffusion-pipeline.js";
import type { GenerateOptions } from "../generate-options.js";
import type { GenerationPlan } from "../generation-plan.js";
import { describePipeline } from "../pipeline-folder.js";
import { checkedClipIds, encodePrompts } from "../text-encoding.js";
import { checkAutoencoder, checkTokenizer, refuseParts } from "./component-checks.js";
import { loadComponents, type PipelineOptions } from "./load-components.js";
import { latentSizeOf, type UNetComponents } from "./unet-components.js";

const NAME = "StableDiffusionPipeline";

/** The parts of a {@link StableDiffusionPipeline}. */
export interface StableDiffusionComponents extends UNetComponents {
  textEncoder: CLIPTextModel;
  tokenizer: CLIPTokenizer;
}

/**
 * Stable Diffusion with one text encoder.
 *
 * B batch, L tokens, D text features.
 *
 * @see Rombach et al. 2022, arXiv:2112.10752
 */
export class StableDiffusionPipeline extends DiffusionPipeline<GenerateOptions, UNet2DConditionModel> {
  readonly textEncoder: CLIPTextModel;
  readonly tokenizer: CLIPTokenizer;

  /** @throws {ConfigError} If the parts do not fit each other. */
  constructor(components: StableDiffusionComponents) {
    checkFit(components);
    const { unet: denoiser, vae, scheduler } = components;
    const latentSize = latentSizeOf(denoiser, 64);
    super({ denoiser, vae, scheduler }, { latentSize, guidanceScale: 7.5, strength: 0.8 });
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
  }

  get unet(): UNet2DConditionModel {
    return this.denoiser;
  }

  override get textEncoders(): readonly CLIPTextModel[] {
    return [this.textEncoder];
  }

  override get tokenizers(): readonly CLIPTokenizer[] {
    return [this.tokenizer];
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout. The safety checker, if there is one, is left out.
   *
   * @param dir - The folder with `model_index.json`; where there is no such folder, an id on the hub (owner/name).
   * @throws {HubError} If the model cannot be had from the hub.
   * @throws {FormatError} If a file is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(dir: string, options: PipelineOptions = {}): Promise<StableDiffusionPipeline> {
    const description = await describePipeline(dir, NAME, options);
    const { source, config, tokenizerSource } = description;
    const tokenizer = await CLIPTokenizer.fromPretrained(tokenizerSource);
    const textEncoder = await CLIPTextModel.fromPretrained(source, { ...options, config, subfolder: "text_encoder" });
    const components = await loadComponents(description, options);
    return new StableDiffusionPipeline({ ...components, textEncoder, tokenizer });
  }

  /**
   * Loads a checkpoint in a single file, such as `v1-5-pruned-emaonly.safetensors`.
   *
   * Such a file has no tokenizer: a folder `tokenizer` must lie beside it, or `config` name a pipeline's folder or hub id.
   * Without `config`, Stable Diffusion 1.x has its own configuration; 2.x needs it.
   *
   * @throws {FormatError} If the file is no such checkpoint, or no tokenizer is found.
   */
  static fromSingleFile(path: string, options: PipelineOptions = {}): Promise<StableDiffusionPipeline> {
    return StableDiffusionPipeline.fromPretrained(path, options);
  }

  /**
   * The text states of prompts, for `unet.predict`.
   *
   * @param options - What else they depend on.
   * @param options.clipSkip - Takes them this many layers earlier. Default 0.
   * @param options.adapters - On the text encoder; default: those in use.
   * @returns `[B, L, D]`.
   * @throws {ConfigError} If a prompt is longer than the tokenizer allows; the part that does not fit is named.
   */
  async encodePrompt(
    prompts: readonly string[],
    { clipSkip = 0, adapters = this.selectAdapters() }: { clipSkip?: number; adapters?: AdapterSelection } = {},
  ): Promise<Tensor<"float32">> {
    const options = { hiddenLayersFromEnd: clipSkip, adapters: { selection: adapters, encoder: 0 } };
    return (await encodePrompts(this, prompts, options)).states;
  }

  override get promptEncoders() {
    return { text_encoder: this.textEncoder };
  }

  override captionTokens(): number {
    return this.tokenizer.maxLength;
  }

  override captionIds(caption: string): readonly (readonly number[])[] {
    return [checkedClipIds(this.tokenizer, caption)];
  }

  override async encodeCaptions(captions: readonly string[]): Promise<Conditioning> {
    return { encoderHiddenStates: await this.encodePrompt(captions) };
  }

  protected override async encodeConditions(
    _: GenerateOptions,
    plan: GenerationPlan,
    adapters: AdapterSelection,
  ): Promise<GuidedConditioning> {
    const { prompts, negativePrompts = prompts.map(() => ""), clipSkip, guides } = plan;
    const conditional = { encoderHiddenStates: await this.encodePrompt(prompts, { clipSkip, adapters }) };
    if (!guides) return { conditional };
    return {
      conditional,
      unconditional: { encoderHiddenStates: await this.encodePrompt(negativePrompts, { adapters }) },
    };
  }
}

function checkFit(components: StableDiffusionComponents): void {
  const { unet, textEncoder, tokenizer } = components;
  const { cross_attention_dim: features, addition_embed_type: addition } = unet.config;
  if (addition === "text_time") {
    refuseParts(
      NAME,
      `addition_embed_type must be null or "text"; the unet has "${addition}" (StableDiffusionXLPipeline)`,
    );
  }
  checkAutoencoder(NAME, components);
  const { hidden_size: hidden } = textEncoder.config;
  if (features !== hidden) {
    refuseParts(
      NAME,
      `the unet's cross_attention_dim must be the text encoder's hidden_size; got ${features} and ${hidden}`,
    );
  }
  checkTokenizer(NAME, tokenizer, textEncoder);
}
