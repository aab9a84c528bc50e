// What text to image and image to image share in every family: options, noise, denoising, images, and adapters.
// How a prompt becomes conditions is each family's own.

import type { FeRAModel } from "../adapters/fera/fera-model.js";
import type { AutoencoderKL } from "../models/autoencoder-kl/autoencoder-kl.js";
import type { AutoencoderTiny } from "../models/autoencoder-tiny/autoencoder-tiny.js";
import type { CLIPTextModel } from "../models/clip-text/clip-text-model.js";
import type { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import { createScheduler, type Scheduler, type SchedulerConfig } from "../schedulers/index.js";
import { Generator, randn } from "../tensor/random.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import { throwIfAborted } from "./abort.js";
import { AdapterSlot } from "./adapter-slot.js";
import { repeatRows } from "./batches.js";
import { type GuidedConditions, repeatConditions } from "./conditions.js";
import { type DenoiseOptions, denoise } from "./denoise.js";
import type { GenerateOptions, GenerateResult } from "./generate-options.js";
import { type GenerationPlan, generationPlan } from "./generation-plan.js";
import { imagesToLatents, latentsToImages } from "./image-latents.js";

/** The parts that every family has. */
export interface DiffusionComponents {
  unet: UNet2DConditionModel;
  vae: AutoencoderKL | AutoencoderTiny;
  /** Or its configuration, of which it is made when it is first used. */
  scheduler: Scheduler | SchedulerConfig;
}

/** What differs between families when nothing is asked for. */
export interface FamilyDefaults {
  /** Side in latent pixels where the UNet's configuration names none. */
  sampleSize: number;
  guidanceScale: number;
  strength: number;
}

/**
 * Images by latent diffusion, from text, or from text and images.
 *
 * @see Rombach et al. 2022, arXiv:2112.10752; Meng et al. 2021, arXiv:2108.01073 (from images)
 */
export abstract class DiffusionPipeline<Options extends GenerateOptions = GenerateOptions> {
  readonly unet: UNet2DConditionModel;
  readonly vae: AutoencoderKL | AutoencoderTiny;
  #scheduler: Scheduler | undefined;
  #schedulerConfig: SchedulerConfig;
  readonly #defaults: FamilyDefaults;
  readonly #adapters: AdapterSlot;
  #queue: Promise<unknown> = Promise.resolve();

  protected constructor({ unet, vae, scheduler }: DiffusionComponents, defaults: FamilyDefaults) {
    this.unet = unet;
    this.vae = vae;
    this.#scheduler = isScheduler(scheduler) ? scheduler : undefined;
    this.#schedulerConfig = isScheduler(scheduler) ? scheduler.config : scheduler;
    this.#defaults = defaults;
    this.#adapters = new AdapterSlot(unet);
  }

  /**
   * What the model is told of a run, one row per prompt.
   *
   * @param plan - Its `guides` says whether the unconditional part is needed.
   */
  protected abstract encodeConditions(options: Options, plan: GenerationPlan): Promise<GuidedConditions>;

  /** The text encoders, the first one first. */
  abstract get textEncoders(): readonly CLIPTextModel[];

  /** Frees what the text encoders have compiled. */
  protected abstract releaseTextEncoders(): Promise<void>;

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

  /** Side in pixels of the images that the model was trained on; the height where they are not square. */
  get defaultSize(): number {
    return this.#sampleSize()[0] * this.latentScale;
  }

  /** The adapters in use. */
  get fera(): FeRAModel | undefined {
    return this.#adapters.fera;
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
   * @throws {ShapeError} If the size is no multiple of {@link latentScale}, or `image` or `latents` have another shape.
   * @throws {AbortError} If the signal fires.
   */
  async generate(options: Options): Promise<GenerateResult> {
    // Adapters and scheduler are those of the call, whatever happens while it waits.
    const predict = this.#adapters.predictor(options.adapters ?? true);
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
    this.#releaseLater(await this.#adapters.load(path));
  }

  /**
   * Uses a model's adapters, for example while it is being trained; `undefined` uses none.
   *
   * @throws {ConfigError} If they are made for another UNet than this pipeline's.
   */
  useAdapters(fera: FeRAModel | undefined): void {
    this.#releaseLater(this.#adapters.use(fera));
  }

  /**
   * How strongly adapters act: 0 is not at all, 1 as trained. Holds for adapters that are loaded later, too.
   *
   * @throws {ConfigError} If it is not finite.
   */
  setAdapterScale(scale: number): void {
    this.#adapters.setScale(scale);
  }

  /** Goes back to the base model. Runs that were asked for before keep the adapters. */
  unloadAdapters(): void {
    this.#releaseLater(this.#adapters.use(undefined));
  }

  /** Frees every compiled graph, after the runs under way; they are made again when needed. */
  async release(): Promise<void> {
    await this.#queue;
    await Promise.all([this.unet.release(), this.vae.release(), this.releaseTextEncoders(), this.fera?.release()]);
  }

  async #generate(options: Options, scheduler: Scheduler, predict: DenoiseOptions["predict"]): Promise<GenerateResult> {
    const { onStep, signal } = options;
    throwIfAborted("generate", signal);

    // 1. Everything that can be refused, before any work
    const [height, width] = this.#sampleSize();
    const { guidanceScale, strength } = this.#defaults;
    const size = { channels: this.unet.config.in_channels, scale: this.latentScale, height, width };
    const plan = generationPlan(options, { ...size, guidanceScale, strength });
    scheduler.setTimesteps(plan.steps);
    if (plan.firstStep > 0) scheduler.setBeginIndex(plan.firstStep);
    const timesteps = scheduler.timesteps.slice(plan.firstStep);

    // 2. Text
    const { conditional, unconditional } = await this.encodeConditions(options, plan);
    throwIfAborted("generate", signal);

    // 3. Noise, or a noisy image, to latents
    const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
    const generator = new Generator(seed);
    const { latents, route } = await denoise({
      ...{ predict, scheduler, timesteps, generator, onStep, signal },
      latents: await this.#start(plan, scheduler, timesteps[0]!, generator, options.latents),
      conditional: repeatConditions(conditional, plan.numImages),
      unconditional: unconditional && repeatConditions(unconditional, plan.numImages),
      guidance: { scale: plan.guidanceScale, rescale: plan.guidanceRescale },
    });

    // 4. Latents to images
    const images = await latentsToImages(this.vae, latents, signal);
    return { images, latents, seed, ...(route && { route }) };
  }

  /** Latents as noisy as the first timestep is. */
  async #start(
    { startImages, latentShape }: GenerationPlan,
    scheduler: Scheduler,
    timestep: number,
    generator: Generator,
    given: Tensor | undefined,
  ): Promise<Tensor<"float32">> {
    const clean = startImages && (await imagesToLatents(this.vae, startImages, generator));
    const noise = (given as Tensor<"float32"> | undefined) ?? randn(latentShape, { generator });
    if (clean) {
      const repeated = repeatRows(clean, latentShape[0] / clean.shape[0]!);
      return scheduler.addNoise(repeated, noise, tensor([timestep]));
    }
    const sigma = scheduler.initNoiseSigma;
    return new Tensor(
      "float32",
      noise.shape,
      noise.data.map((value) => value * sigma),
    );
  }

  #releaseLater(fera: FeRAModel | undefined): void {
    if (fera) this.#queue = this.#queue.then(() => fera.release()).catch(() => undefined);
  }

  /** Latent height and width that the UNet was trained for. */
  #sampleSize(): [height: number, width: number] {
    const size = this.unet.config.sample_size ?? this.#defaults.sampleSize;
    return typeof size === "number" ? [size, size] : [size[0]!, size[1] ?? size[0]!];
  }
}

const isScheduler = (value: Scheduler | SchedulerConfig): value is Scheduler =>
  typeof (value as Partial<Scheduler>).setTimesteps === "function";
