// StableDiffusionPipeline: text to image with Stable Diffusion 1.x and 2.x, with or without FeRA adapters.
// Reads no files itself.

import { ConfigError } from "../errors.js";
import { FeRAModel } from "../fera/fera-model.js";
import { AutoencoderKL } from "../models/autoencoder-kl.js";
import { AutoencoderTiny } from "../models/autoencoder-tiny.js";
import { CLIPTextModel } from "../models/clip-text-model.js";
import { CLIPTokenizer } from "../models/clip-tokenizer.js";
import type { PretrainedOptions } from "../models/pretrained.js";
import { UNet2DConditionModel } from "../models/unet-2d-condition.js";
import { createScheduler, type Scheduler } from "../schedulers/index.js";
import { Generator, randn } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";
import { throwIfAborted } from "./abort.js";
import { concatRows, repeatRows, rowsOf, sliceRows } from "./batches.js";
import { type DenoiseOptions, denoise } from "./denoise.js";
import { type GenerateOptions, type GenerateResult, generationShape } from "./generate-options.js";
import { describePipeline } from "./pipeline-folder.js";

/** Images decoded at once: more would need more memory and be no faster. */
const DECODE_BATCH = 4;
/** Latent pixels where the UNet's configuration names no size, as diffusers has it. */
const DEFAULT_SAMPLE_SIZE = 64;

/** The parts of a {@link StableDiffusionPipeline}. */
export interface StableDiffusionComponents {
  unet: UNet2DConditionModel;
  vae: AutoencoderKL | AutoencoderTiny;
  textEncoder: CLIPTextModel;
  tokenizer: CLIPTokenizer;
  scheduler: Scheduler;
}

/**
 * Text to image by latent diffusion.
 *
 * B, N batch, L tokens, D text features, C latent channels.
 *
 * @see Rombach et al. 2022, arXiv:2112.10752
 */
export class StableDiffusionPipeline {
  readonly unet: UNet2DConditionModel;
  readonly vae: AutoencoderKL | AutoencoderTiny;
  readonly textEncoder: CLIPTextModel;
  readonly tokenizer: CLIPTokenizer;
  /** May be replaced between runs. */
  scheduler: Scheduler;
  #fera: FeRAModel | undefined;
  /** Adapters that were loaded here are released here; those of a training are not. */
  #ownsFera = false;
  #adapterScale = 1;
  #queue: Promise<unknown> = Promise.resolve();

  /** @throws {ConfigError} If the parts do not fit each other. */
  constructor(components: StableDiffusionComponents) {
    checkFit(components);
    this.unet = components.unet;
    this.vae = components.vae;
    this.textEncoder = components.textEncoder;
    this.tokenizer = components.tokenizer;
    this.scheduler = components.scheduler;
  }

  /**
   * Loads a pipeline from a folder in diffusers' layout. The safety checker, if there is one, is left out.
   *
   * @param dir - The folder with `model_index.json`; hub ids are not yet supported.
   * @throws {FormatError} If a file is missing or malformed, or a part's class is not supported.
   * @throws {ConfigError} If a part's configuration is not supported, or the parts do not fit each other.
   */
  static async fromPretrained(
    dir: string,
    options: Omit<PretrainedOptions, "subfolder"> = {},
  ): Promise<StableDiffusionPipeline> {
    const { vaeClass, schedulerConfig } = await describePipeline(dir);
    const of = (subfolder: string): PretrainedOptions => ({ ...options, subfolder });
    const scheduler = createScheduler(schedulerConfig);
    const tokenizer = await CLIPTokenizer.fromPretrained(dir);
    const textEncoder = await CLIPTextModel.fromPretrained(dir, of("text_encoder"));
    const unet = await UNet2DConditionModel.fromPretrained(dir, of("unet"));
    const Vae = vaeClass === "AutoencoderKL" ? AutoencoderKL : AutoencoderTiny;
    const vae = await Vae.fromPretrained(dir, of("vae"));
    return new StableDiffusionPipeline({ unet, vae, textEncoder, tokenizer, scheduler });
  }

  /** Image pixels per latent pixel, along each side. */
  get latentScale(): number {
    return this.vae.downscale;
  }

  /** Side in pixels of the images that the model was trained on; the height where they are not square. */
  get defaultSize(): number {
    return this.#sampleSize()[0] * this.latentScale;
  }

  /** The adapters in use. */
  get fera(): FeRAModel | undefined {
    return this.#fera;
  }

  /**
   * The text states of prompts, for `unet.predict`.
   *
   * @returns `[B, L, D]`.
   * @throws {ConfigError} If a prompt is longer than the tokenizer allows; the part that does not fit is named.
   */
  async encodePrompt(prompts: readonly string[]): Promise<Tensor<"float32">> {
    if (prompts.length === 0) throw new ConfigError("encodePrompt: needs at least one prompt.");
    const encodings = new Map(prompts.map((prompt) => [prompt, this.#tokenize(prompt)]));
    // One at a time: a single compiled graph serves every number of prompts, and each text is encoded once.
    const states = new Map<string, Tensor<"float32">>();
    for (const [prompt, ids] of encodings) states.set(prompt, await this.textEncoder.encode(ids));
    return concatRows(prompts.map((prompt) => states.get(prompt)!));
  }

  /**
   * Makes images.
   *
   * Calls that overlap run one after the other, because they share the scheduler; so `onStep` must not await another.
   *
   * @throws {ConfigError} If an option is invalid or a prompt is too long.
   * @throws {ShapeError} If the size is no multiple of {@link latentScale}, or `latents` have another shape.
   * @throws {AbortError} If the signal fires.
   */
  generate(options: GenerateOptions): Promise<GenerateResult> {
    // Adapters and scheduler are those of the call, whatever happens while it waits.
    const predict = this.#predictor(options.adapters ?? true);
    const scheduler = options.scheduler ?? this.scheduler;
    const run = this.#queue.then(() => this.#generate(options, scheduler, predict));
    this.#queue = run.catch(() => undefined);
    return run;
  }

  /**
   * Loads adapters and uses them from now on, in place of those in use.
   *
   * @param path - As `FeRAModel.loadAdapters`.
   * @throws {FormatError} If the file is malformed or made for another model; the adapters in use then stay.
   */
  async loadAdapters(path: string): Promise<void> {
    const fera = new FeRAModel(this.unet);
    await fera.loadAdapters(path);
    this.unloadAdapters();
    this.#fera = fera;
    this.#ownsFera = true;
  }

  /**
   * Uses a model's adapters, for example while it is being trained; `undefined` uses none.
   *
   * @throws {ConfigError} If they are made for another UNet than this pipeline's.
   */
  useAdapters(fera: FeRAModel | undefined): void {
    if (fera && fera.model !== this.unet) {
      throw new ConfigError("useAdapters: the FeRAModel must be made around this pipeline's own unet.");
    }
    if (fera === this.#fera) return;
    this.unloadAdapters();
    this.#fera = fera;
  }

  /**
   * How strongly adapters act: 0 is not at all, 1 as trained. Holds for adapters that are loaded later, too.
   *
   * @throws {ConfigError} If it is not finite.
   */
  setAdapterScale(scale: number): void {
    if (!Number.isFinite(scale)) throw new ConfigError(`setAdapterScale: the scale must be finite; got ${scale}.`);
    this.#adapterScale = scale;
  }

  /** Goes back to the base model. Runs that were asked for before keep the adapters. */
  unloadAdapters(): void {
    const owned = this.#ownsFera ? this.#fera : undefined;
    this.#fera = undefined;
    this.#ownsFera = false;
    if (owned) this.#queue = this.#queue.then(() => owned.release()).catch(() => undefined);
  }

  /** Frees every compiled graph, after the runs under way; they are made again when needed. */
  async release(): Promise<void> {
    await this.#queue;
    await Promise.all([this.unet, this.vae, this.textEncoder, this.#fera].map((part) => part?.release()));
  }

  async #generate(
    options: GenerateOptions,
    scheduler: Scheduler,
    predict: DenoiseOptions["predict"],
  ): Promise<GenerateResult> {
    const { steps = 25, guidanceScale = 7.5, signal } = options;
    throwIfAborted("generate", signal);

    // 1. Everything that can be refused, before any work
    const [height, width] = this.#sampleSize();
    const channels = this.unet.config.in_channels;
    const shape = generationShape(options, { channels, scale: this.latentScale, height, width });
    if (!Number.isSafeInteger(steps) || steps < 1) {
      throw new ConfigError(`generate: steps must be a positive integer; got ${steps}.`);
    }
    scheduler.setTimesteps(steps);

    // 2. Text
    const guides = guidanceScale > 1;
    const texts = guides ? [...shape.negativePrompts, ...shape.prompts] : shape.prompts;
    const states = repeatRows(await this.encodePrompt(texts), shape.numImages);
    const count = shape.latentShape[0];

    // 3. Noise to latents. The generator's first draw is the initial noise, as in diffusers on the CPU.
    const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
    const generator = new Generator(seed);
    const { latents, route } = await denoise({
      predict,
      scheduler,
      noise: (options.latents as Tensor<"float32"> | undefined) ?? randn(shape.latentShape, { generator }),
      conditional: guides ? sliceRows(states, count, 2 * count) : states,
      unconditional: guides ? sliceRows(states, 0, count) : undefined,
      guidanceScale,
      generator,
      onStep: options.onStep,
      signal,
    });

    // 4. Latents to images
    const images = await this.#decode(latents, signal);
    return { images, latents, seed, ...(route && { route }) };
  }

  /** The model with the adapters as they are now. */
  #predictor(adapters: boolean): DenoiseOptions["predict"] {
    const fera = adapters ? this.#fera : undefined;
    const adapterScale = this.#adapterScale;
    if (fera) return (inputs) => fera.predictWithRoute({ ...inputs, adapterScale });
    return async (inputs) => ({ output: await this.unet.predict(inputs) });
  }

  async #decode(latents: Tensor<"float32">, signal: AbortSignal | undefined): Promise<Tensor<"float32">[]> {
    const { scaling_factor: scale, shift_factor: shift } = this.vae.config;
    const unscaled = new Tensor(
      "float32",
      latents.shape,
      latents.data.map((value) => value / scale + shift),
    );
    const images: Tensor<"float32">[] = [];
    const count = latents.shape[0]!;
    for (let from = 0; from < count; from += DECODE_BATCH) {
      throwIfAborted("generate", signal);
      const decoded = await this.vae.decode(sliceRows(unscaled, from, Math.min(from + DECODE_BATCH, count)));
      for (const image of rowsOf(decoded)) {
        const clamped = image.data.map((value) => Math.min(Math.max(value, -1), 1));
        images.push(new Tensor("float32", image.shape.slice(1), clamped));
      }
    }
    return images;
  }

  #tokenize(prompt: string): Tensor<"int64"> {
    const { ids, overflows } = this.tokenizer.encodeBatch([prompt]);
    const [overflow] = overflows;
    if (overflow !== undefined) {
      throw new ConfigError(
        `the prompt is longer than the ${this.tokenizer.maxLength - 2} tokens that the text encoder takes; ` +
          `"${overflow}" does not fit. Shorten "${prompt}".`,
      );
    }
    return ids;
  }

  /** Latent height and width that the UNet was trained for. */
  #sampleSize(): [height: number, width: number] {
    const size = this.unet.config.sample_size ?? DEFAULT_SAMPLE_SIZE;
    return typeof size === "number" ? [size, size] : [size[0]!, size[1] ?? size[0]!];
  }
}

function checkFit({ unet, vae, textEncoder, tokenizer }: StableDiffusionComponents): void {
  const { in_channels: channels, out_channels: predicted, cross_attention_dim: features } = unet.config;
  const latentChannels = vae.config.latent_channels;
  const { hidden_size: hidden, vocab_size: vocabulary, max_position_embeddings: positions } = textEncoder.config;
  const refuse = (rule: string) => {
    throw new ConfigError(`StableDiffusionPipeline: ${rule}. Take the parts of one pipeline's folder.`);
  };
  if (unet.config.addition_embed_type !== null) {
    refuse(`addition_embed_type must be null; the unet has "${unet.config.addition_embed_type}" (Stable Diffusion XL)`);
  }
  if (channels !== latentChannels || predicted !== latentChannels) {
    refuse(
      `the unet's in_channels and out_channels must be the vae's latent_channels; got ${channels}, ${predicted} and ${latentChannels}`,
    );
  }
  if (features !== hidden) {
    refuse(`the unet's cross_attention_dim must be the text encoder's hidden_size; got ${features} and ${hidden}`);
  }
  if (tokenizer.vocabSize > vocabulary) {
    refuse(`the tokenizer has ${tokenizer.vocabSize} tokens, the text encoder's vocab_size is ${vocabulary}`);
  }
  if (tokenizer.maxLength > positions) {
    refuse(
      `the tokenizer gives ${tokenizer.maxLength} tokens, the text encoder's max_position_embeddings is ${positions}`,
    );
  }
  if (vae.config.out_channels !== 3) refuse(`the vae's out_channels must be 3; got ${vae.config.out_channels}`);
}
