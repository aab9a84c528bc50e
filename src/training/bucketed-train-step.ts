// A training step for each size of latents that a dataset has, over the same parameters: compiled once each, when a batch of
// that size comes, and kept.

import type {
  CompiledTrainStep,
  StepLossScale,
  TrainStepInputs,
  TrainStepOptions,
} from "../adapters/train-step-options.js";
import { ShapeError } from "../errors.js";
import { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { type BatchOptions, DiffusionBatches } from "./diffusion-batches.js";
import type { EncodedRows, LatentSize } from "./encoded-dataset.js";
import type {
  DeviceStepOptions,
  DeviceSteps,
  Losses,
  LossesAndGradients,
  StepOutcome,
  Trainable,
} from "./trainable.js";

/**
 * Of models with more bytes of weights only one size is loaded at a time: each holds as much memory as its largest step
 * took, gigabytes. Loading it again takes a small part of such a model's step; see {@link BucketedTrainStep}.
 */
const LARGEST_KEPT_LOADED_BYTES = 256e6;

/** Whether only one size's step of a model is loaded at a time. */
export const keepsOneSize = ({ weights }: { readonly weights: { readonly float32Bytes: number } }): boolean =>
  weights.float32Bytes > LARGEST_KEPT_LOADED_BYTES;

/** Makes the steps; an adapter model is one. */
export interface StepCompiler {
  readonly model: { readonly weights: { readonly float32Bytes: number } };
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  compileTrainStep(options: TrainStepOptions): Promise<CompiledTrainStep>;
}

/** What is the same for all sizes. */
export type BucketedStepOptions = Omit<TrainStepOptions, "latentHeight" | "latentWidth" | "height" | "width">;

/** A compiled step, with what a trainer wants of it. */
type Step = CompiledTrainStep & Trainable<TrainStepInputs> & { unload?(): Promise<void> };

/**
 * Training steps by the size of a batch's latents.
 *
 * All share parameters, optimizer and average. Steps of a small model stay loaded; of a large one the step of another size
 * is unloaded before one is loaded, so that memory is that of the largest, not of all together. What was compiled is kept.
 */
export class BucketedTrainStep implements Trainable<TrainStepInputs> {
  private readonly steps = new Map<string, Promise<Step>>();
  private loaded: string | undefined;
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly compiler: StepCompiler,
    private readonly sizes: readonly LatentSize[],
    private readonly options: BucketedStepOptions,
    readonly deviceSteps: DeviceSteps<TrainStepInputs> | undefined,
  ) {}

  /**
   * Compiles the step of the first size; the others follow when their batches come.
   *
   * @param sizes - All that there are, the largest first, so that a lack of memory shows at the start.
   * @throws As `compileTrainStep`.
   */
  static async compile(
    compiler: StepCompiler,
    sizes: readonly LatentSize[],
    options: BucketedStepOptions,
  ): Promise<BucketedTrainStep> {
    const first = (await compiler.compileTrainStep({ ...options, ...sizes[0]! })) as Step;
    let steps: BucketedTrainStep;
    const onDevice: DeviceSteps<TrainStepInputs> | undefined = first.deviceSteps && {
      optimizer: first.deviceSteps.optimizer,
      ...(first.deviceSteps.average && { average: first.deviceSteps.average }),
      ...(first.deviceSteps.rateOf && { rateOf: first.deviceSteps.rateOf }),
      step: (batch: TrainStepInputs, stepOptions: DeviceStepOptions): Promise<StepOutcome> =>
        steps.with(batch, (step) => step.deviceSteps!.step(batch, stepOptions)),
    };
    steps = new BucketedTrainStep(compiler, sizes, options, onDevice);
    const key = keyOf(sizes[0]!);
    steps.steps.set(key, Promise.resolve(first));
    steps.loaded = key;
    return steps;
  }

  /** The factor on the loss, which the steps of all sizes share. */
  get lossScale(): StepLossScale | undefined {
    return this.options.lossScale;
  }

  /** The trained tensors under their stacked names, with current values. */
  get parameters(): ReadonlyMap<string, Tensor<"float32">> {
    return this.compiler.parameters;
  }

  /** As a step's own, by the one of the batch's size. @throws {ShapeError} If no image has latents of that size. */
  compute(batch: TrainStepInputs): Promise<LossesAndGradients> {
    return this.with(batch, (step) => step.compute(batch));
  }

  /** Losses without dropout and without gradients. Changes nothing. */
  evaluate(batch: TrainStepInputs): Promise<Losses> {
    return this.with(batch, (step) => step.evaluate(batch));
  }

  /** Frees the memory of what was compiled, after the steps that were asked for; the next one loads its own again. */
  async unload(): Promise<void> {
    await this.queue;
    for (const step of this.steps.values()) await (await step).unload?.();
  }

  /** Frees all that was compiled. */
  async release(): Promise<void> {
    await this.queue;
    for (const step of this.steps.values()) await (await step).release();
    this.steps.clear();
  }

  private with<T>(batch: TrainStepInputs, use: (step: Step) => Promise<T>): Promise<T> {
    const result = this.queue.then(async () => use(await this.stepFor(batch)));
    this.queue = result.catch(() => undefined);
    return result;
  }

  private async stepFor({ latents }: TrainStepInputs): Promise<Step> {
    const [, , latentHeight, latentWidth] = latents.shape as [number, number, number, number];
    const size = { latentHeight, latentWidth };
    const key = keyOf(size);
    if (!this.sizes.some((each) => keyOf(each) === key)) {
      throw new ShapeError(
        `train step: no image has latents of ${key}; there are ${this.sizes.map(keyOf).join(", ")}.`,
      );
    }
    if (this.loaded !== undefined && this.loaded !== key && this.keepsOne) {
      await (await this.steps.get(this.loaded))?.unload?.();
    }
    let step = this.steps.get(key);
    if (!step) {
      step = this.compiler.compileTrainStep({ ...this.options, ...size }) as Promise<Step>;
      this.steps.set(key, step);
      step.catch(() => this.steps.delete(key));
    }
    this.loaded = key;
    return step;
  }

  private get keepsOne(): boolean {
    return keepsOneSize(this.compiler.model);
  }
}

/**
 * The training step for every size of latents that the rows have. Where there are several, the largest is compiled and run
 * once on a batch of its own: what does not fit into memory fails here, not after an epoch.
 *
 * @param sizes - The largest first.
 * @param drawing - How batches are drawn.
 */
export async function compileForSizes(
  compiler: StepCompiler,
  { rows, sizes }: { rows: EncodedRows; sizes: readonly LatentSize[] },
  drawing: Omit<BatchOptions, "generator" | "variation">,
  options: BucketedStepOptions,
): Promise<BucketedTrainStep | CompiledTrainStep> {
  const [largest, ...others] = sizes;
  if (others.length === 0) return compiler.compileTrainStep({ ...options, ...largest! });
  const steps = await BucketedTrainStep.compile(compiler, sizes, options);
  try {
    const trial: EncodedRows = {
      ...{ size: rows.size, empty: rows.empty },
      repeats: (index) => (keyOf(rows.latentSize(index)) === keyOf(largest!) ? 1 : 0),
      latentSize: (index) => rows.latentSize(index),
      read: (draws) => rows.read(draws),
    };
    // With a generator of its own, so that the training draws the same numbers with it and without.
    await steps.compute(await new DiffusionBatches(trial, { ...drawing, generator: new Generator(0) }).next());
  } catch (error) {
    await steps.release();
    throw error;
  }
  return steps;
}

const keyOf = ({ latentHeight, latentWidth }: LatentSize): string => `${latentHeight}×${latentWidth}`;
