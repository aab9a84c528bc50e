// What text to image and image to image share in every family: options, noise, denoising and images. How a prompt
// becomes conditioning is each family's own.

import type { StackPrediction } from "../adapters/adapter-stack.js";
import {
  type Conditioning,
  conditioningShapes,
  type Denoiser,
  type DenoiserInputs,
  type DynamicShiftConfig,
  dynamicShiftMu,
  repeatConditioning,
} from "../diffusion/index.js";
import { ConfigError, quoted } from "../errors.js";
import type { Autoencoder } from "../models/autoencoder.js";
import { createScheduler, type RunOptions, type Scheduler, type SchedulerConfig } from "../schedulers/index.js";
import { Generator, randn } from "../tensor/random.js";
import { repeatRows } from "../tensor/rows.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import { AdaptedPipeline } from "./adapted-pipeline.js";
import type { AdapterSelection, PromptAdapters } from "./adapter-set.js";
import { denoise, type GuidedConditioning } from "./denoise.js";
import type { GenerateOptions, GenerateResult, GenerationProgress } from "./generate-options.js";
import { type GenerationPlan, generationPlan } from "./generation-plan.js";
import { type ImageWork, imagesToLatents, latentsToImages } from "./image-latents.js";
import { modelConditioning } from "./model-conditioning.js";

/** The parts that every family has. */
export interface DiffusionComponents<Model extends Denoiser = Denoiser> {
  denoiser: Model;
  vae: Autoencoder;
  /** Or its configuration, of which it is made when it is first used. */
  scheduler: Scheduler | SchedulerConfig;
}

/** A text encoder of whatever kind. */
export interface PromptReader {
  readonly weights: Denoiser["weights"];
  readonly config: unknown;
  release(): Promise<void>;
}

/** What differs between families when nothing is asked for. */
export interface FamilyDefaults {
  /** Latent height and width that the model was trained for. */
  latentSize: readonly [height: number, width: number];
  guidanceScale: number;
  strength: number;
  /** Latent pixels along the side of a token, where there are some: sides of latents are its multiples. */
  patch?: number;
  /** Whether from an image ⌈steps · strength⌉ steps are done, as with flow matching. */
  roundsStepsUp?: boolean;
}

/**
 * Images by latent diffusion, from text, or from text and images.
 *
 * @see Rombach et al. 2022, arXiv:2112.10752; Meng et al. 2021, arXiv:2108.01073 (from images)
 */
export abstract class DiffusionPipeline<
  Options extends GenerateOptions = GenerateOptions,
  Model extends Denoiser = Denoiser,
> extends AdaptedPipeline<Model> {
  readonly vae: Autoencoder;
  /**
   * False frees text encoders, denoiser and autoencoder as soon as a call of `generate` is done with each, and decodes one
   * image at a time: memory is that of the largest, and each call loads all of them again.
   */
  keepsModelsLoaded = true;
  #scheduler: Scheduler | undefined;
  #schedulerConfig: SchedulerConfig;
  readonly #defaults: FamilyDefaults;

  protected constructor({ denoiser, vae, scheduler }: DiffusionComponents<Model>, defaults: FamilyDefaults) {
    super(denoiser);
    this.vae = vae;
    this.#scheduler = isScheduler(scheduler) ? scheduler : undefined;
    this.#schedulerConfig = isScheduler(scheduler) ? scheduler.config : scheduler;
    this.#defaults = defaults;
  }

  /**
   * What the model is told of the prompts, one row each.
   *
   * @param plan - Its `guides` says whether the unconditional part is needed.
   * @param adapters - Those that act on the text encoders.
   */
  protected abstract encodeConditions(
    options: Options,
    plan: GenerationPlan,
    adapters: AdapterSelection,
  ): Promise<GuidedConditioning>;

  /** All that reads prompts, by the names of the folders. */
  abstract get promptEncoders(): Readonly<Record<string, PromptReader>>;

  /** Tokens of the text that the model is told of a caption; the same of all captions, but in Z-Image. */
  abstract captionTokens(caption: string): number;

  /**
   * A caption's token ids, of each tokenizer: all that {@link encodeCaptions} depends on.
   *
   * @throws {ConfigError} If it is longer than the model allows; the part that does not fit is named.
   */
  abstract captionIds(caption: string): readonly (readonly number[])[];

  /**
   * What the model is told of captions in training, one row each; the same as of prompts that nothing else is said of.
   *
   * @throws {ConfigError} If one is longer than the model allows.
   */
  abstract encodeCaptions(captions: readonly string[]): Promise<Conditioning>;

  /**
   * How far guidance goes: s in u + s · (c − u).
   *
   * @param takes - Names of the model's conditioning.
   */
  protected guidanceFactor(_options: Options, guidanceScale: number, takes: ReadonlyMap<string, unknown>): number {
    // A model that was told the scale needs no unconditional part.
    return takes.has("timestepCond") ? 1 : guidanceScale;
  }

  /** What the noise levels of a run follow, where its scheduler asks for that. */
  protected runOptions({ latentShape }: GenerationPlan, { config }: Scheduler): RunOptions {
    const [, , height, width] = latentShape;
    return config.use_dynamic_shifting ? { mu: dynamicShiftMu(height, width, config as DynamicShiftConfig) } : {};
  }

  /** How the denoiser is asked, with its adapters. */
  protected predictor(
    _options: Options,
    adapters: AdapterSelection,
  ): (inputs: DenoiserInputs) => Promise<StackPrediction> {
    return adapters.predict;
  }

  /** Standard normal noise to start with, in the order in which diffusers draws it. */
  protected drawNoise(shape: GenerationPlan["latentShape"], generator: Generator): Tensor<"float32"> {
    return randn(shape, { generator });
  }

  /** Images to what the model works on. */
  protected encodeImages(images: Tensor<"float32">, generator: Generator, work: ImageWork): Promise<Tensor<"float32">> {
    return imagesToLatents(this.vae, images, generator, work);
  }

  /**
   * The sampler; may be replaced between runs.
   *
   * @throws {ConfigError} If the pipeline names one that is not supported; replace it, or give `generate` another.
   */
  get scheduler(): Scheduler {
    this.#scheduler ??= createScheduler(this.#schedulerConfig);
    return this.#scheduler;
  }

  set scheduler(next: Scheduler) {
    this.#scheduler = next;
    this.#schedulerConfig = next.config;
  }

  /** The scheduler's configuration in diffusers' keys, with the noise schedule that the model was trained on. */
  get schedulerConfig(): SchedulerConfig {
    return this.#schedulerConfig;
  }

  /** Image pixels per latent pixel, along each side. */
  get latentScale(): number {
    return this.vae.downscale;
  }

  /** Pixels that height and width are multiples of: those of a latent pixel, or of a token of several. */
  get sizeStep(): number {
    return this.latentScale * (this.#defaults.patch ?? 1);
  }

  /** Side in pixels of the images that the model was trained on; the height where they are not square. */
  get defaultSize(): number {
    return this.#defaults.latentSize[0] * this.latentScale;
  }

  /** Strength of the prompt where `generate` is given none. */
  get defaultGuidanceScale(): number {
    return this.#defaults.guidanceScale;
  }

  /** Share of the steps that is done from an image where `generate` is given none. */
  get defaultStrength(): number {
    return this.#defaults.strength;
  }

  /**
   * Makes images, from text alone, or from `image` and text.
   *
   * From an image, the latents of the image are diffused to a timestep that `strength` chooses, and denoised from there.
   * Random numbers are drawn as diffusers draws them on the CPU: for the image's latents, for the first noise, for the
   * sampler. Calls that overlap run one after the other, because they share the scheduler; so `onStep` must not await
   * another.
   *
   * @throws {ConfigError} If an option is invalid or a prompt is too long.
   * @throws {ShapeError} If the size is no multiple of {@link sizeStep}, or `image` or `latents` have another shape.
   * @throws The signal's reason, by default a DOMException named AbortError, if it fires.
   */
  async generate(options: Options): Promise<GenerateResult> {
    // Adapters and scheduler are those of the call, whatever happens while it waits.
    const adapters = this.selectAdapters(wantedAdapters(options));
    const scheduler = options.scheduler ?? this.scheduler;
    return this.inTurn(() => this.#generate(options, scheduler, adapters));
  }

  /** Frees the text encoders' compiled graphs. */
  releasePromptEncoders(): Promise<void> {
    return this.releaseTextEncoders();
  }

  override async release(): Promise<void> {
    await super.release();
    await this.vae.release();
  }

  async #generate(options: Options, scheduler: Scheduler, adapters: AdapterSelection): Promise<GenerateResult> {
    const { onProgress, signal } = options;
    signal?.throwIfAborted();
    const following = (phase: GenerationProgress["phase"]): ImageWork => ({
      onProgress: (done, total) => onProgress?.({ phase, done, total }),
      signal,
    });

    // 1. Everything that can be refused, before any work
    const { latentSize, ...defaults } = this.#defaults;
    const [height, width] = latentSize;
    const takes = conditioningShapes(this.denoiser);
    const size = { channels: this.denoiser.latentChannels, scale: this.latentScale, height, width };
    const plan = generationPlan(options, {
      ...{ ...size, ...defaults },
      guidanceFactor: (scale) => this.guidanceFactor(options, scale, takes),
    });
    const beside = modelConditioning(options, plan, takes);
    scheduler.setTimesteps(plan.steps, this.runOptions(plan, scheduler));
    if (plan.firstStep > 0) scheduler.setBeginIndex(plan.firstStep);
    const timesteps = scheduler.timesteps.slice(plan.firstStep);

    // 2. Text
    const { conditional, unconditional } = await this.encodeConditions(options, plan, adapters);
    const ofImages = (conditioning: typeof conditional) => ({
      ...repeatConditioning(conditioning, plan.numImages),
      ...beside,
    });
    if (!this.keepsModelsLoaded) await this.releaseTextEncoders();
    onProgress?.({ phase: "text", done: plan.prompts.length, total: plan.prompts.length });
    signal?.throwIfAborted();

    // 3. Noise, or a noisy image, to latents
    const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
    const generator = new Generator(seed);
    const clean = plan.startImages && (await this.encodeImages(plan.startImages, generator, following("image")));
    if (clean && !this.keepsModelsLoaded) await this.vae.release();
    const { latents, routes } = await denoise({
      ...{ scheduler, timesteps, generator, signal },
      predict: this.predictor(options, adapters),
      async onStep(step) {
        await options.onStep?.(step);
        onProgress?.({ phase: "sampling", done: step.step, total: step.steps });
      },
      latents: startLatents(
        clean,
        (options.latents as Tensor<"float32"> | undefined) ?? this.drawNoise(plan.latentShape, generator),
        scheduler,
        timesteps[0]!,
      ),
      conditional: ofImages(conditional),
      unconditional: unconditional && ofImages(unconditional),
      guidance: { scale: plan.guidanceFactor, rescale: plan.guidanceRescale },
    });

    // 4. Latents to images
    if (!this.keepsModelsLoaded) await this.releaseDenoiser();
    const together = this.keepsModelsLoaded ? undefined : 1;
    const images =
      options.decodes === false ? [] : await latentsToImages(this.vae, latents, { ...following("decoding"), together });
    if (!this.keepsModelsLoaded) await this.vae.release();
    const [route] = routes.values();
    return { images, latents, seed, ...(route && { route }), routes };
  }
}

/** One entry of `adapters` for each prompt, or what holds for all. */
function wantedAdapters({ adapters, prompt, numImages = 1 }: GenerateOptions): boolean | PromptAdapters | undefined {
  if (adapters === undefined || typeof adapters === "boolean") return adapters;
  const prompts = typeof prompt === "string" ? 1 : prompt.length;
  if (Array.isArray(adapters) && adapters.length === prompts) return { choices: adapters, numImages };
  const came = Array.isArray(adapters) ? `${adapters.length} for ${prompts}` : quoted(adapters);
  throw new ConfigError(`generate: adapters must be true, false, or a list with one entry per prompt; got ${came}.`);
}

const isScheduler = (value: Scheduler | SchedulerConfig): value is Scheduler =>
  typeof (value as Partial<Scheduler>).setTimesteps === "function";
/** Latents as noisy as the first timestep is. */
function startLatents(
  clean: Tensor<"float32"> | undefined,
  noise: Tensor<"float32">,
  scheduler: Scheduler,
  timestep: number,
): Tensor<"float32"> {
  if (clean) {
    const repeated = repeatRows(clean, noise.shape[0]! / clean.shape[0]!);
    return scheduler.addNoise(repeated, noise, tensor([timestep]));
  }
  const sigma = scheduler.initNoiseSigma;
  return new Tensor(
    "float32",
    noise.shape,
    noise.data.map((value) => value * sigma),
  );
}
