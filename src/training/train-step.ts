// One training step of any adapter on any denoiser, compiled: losses, gradients, and steps of an optimizer in main memory
// or on the device.

import type { AdapterState, StepAdapter } from "../adapters/adapter.js";
import type {
  CompiledTrainStep,
  StepLossScale,
  TrainStepInputs,
  TrainStepOptions,
} from "../adapters/train-step-options.js";
import type { Denoiser, DenoiserShape } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { Graph } from "../graph/index.js";
import {
  type CompiledGraph,
  compile,
  compileDataParallel,
  type DataParallelGraph,
  deviceOf,
  isGpu,
  type Precision,
  supportsIoBinding,
} from "../runtime/index.js";
import { allFinite, type Tensor, tensor } from "../tensor/tensor.js";
import { canBeOnDevice } from "./average.js";
import { DeviceStep } from "./device-step.js";
import { LossScale } from "./loss-scale.js";
import { OptimizerStep } from "./optimizer-step.js";
import { hasGraphForm } from "./optimizers/elementwise-optimizer.js";
import { Optimizer } from "./optimizers/optimizer.js";
import { type StepDropout, StepFeeds } from "./step-feeds.js";
import {
  buildDeviceStep,
  buildLosses,
  buildTrainStep,
  LOSS_SCALE,
  lossesOf,
  lossNamesOf,
  SAMPLE_LOSSES,
  type StepParts,
  sampleLossesOf,
} from "./step-graph.js";
import type { Losses, LossesAndGradients, Trainable } from "./trainable.js";

/** The adapters that a step trains. */
export interface TrainedAdapter extends AdapterState<StepAdapter> {
  /** Whether they are still the model's. */
  isCurrent: () => boolean;
}

/** What a step computes with: one graph that gives gradients, or one that also holds and updates the state. */
type Computation = { graph: DataParallelGraph; device?: undefined } | { device: DeviceStep; graph?: undefined };

/** A compiled training step over parameters that the caller may change in place. */
export class TrainStep implements Trainable<TrainStepInputs>, CompiledTrainStep {
  private evaluation: Promise<CompiledGraph> | undefined;
  private readonly optimizerStep: OptimizerStep<TrainStepInputs> | undefined;
  /** The last step that was asked for, whether it went well or not. */
  private lastStep: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly trained: TrainedAdapter,
    private readonly parts: StepParts,
    options: TrainStepOptions,
    private readonly feeds: StepFeeds,
    private readonly computation: Computation,
    /** In mixed precision. */
    readonly lossScale: StepLossScale | undefined,
  ) {
    const { optimizer, average, rateOf } = options;
    const maxGradientNorm = maxGradientNormOf(options);
    this.optimizerStep =
      optimizer && new OptimizerStep({ trainable: this, optimizer, average, maxGradientNorm, rateOf });
  }

  /**
   * Compiles the step.
   *
   * @throws {ConfigError} If a size is not a positive integer, the clipping norm not above 0, the average one of other
   *   parameters, or the state cannot stay on the device though it was asked for.
   */
  static async compile(model: Denoiser, trained: TrainedAdapter, options: TrainStepOptions): Promise<TrainStep> {
    const { optimizer, average, dropoutSeed: seed = 0, objective, lossWeights, lossMask } = options;
    const shape = shapeOf(options);
    const maxGradientNorm = maxGradientNormOf(options);
    if (maxGradientNorm !== undefined && !(maxGradientNorm > 0)) {
      throw new ConfigError(`compileTrainStep: maxGradientNorm must be above 0; got ${maxGradientNorm}.`);
    }
    if (average && !average.isOf(trained.parameters)) {
      throw new ConfigError(
        "compileTrainStep: average must be one of this model's adapters; got one of other parameters. " +
          "Make it with new ParameterAverage(fera.parameters, decay), once the adapters are loaded.",
      );
    }
    const isHalf = options.mixedPrecision === "fp16";
    const { quantization } = model.weights;
    if (isHalf && quantization) {
      throw new ConfigError(
        `compileTrainStep: mixedPrecision fp16 goes with float weights, not with weights kept as ${quantization}. ` +
          "Load the model with another dtype, or leave mixedPrecision out.",
      );
    }
    const precision: Precision = isHalf ? "float16" : "float32";
    const lossScale = isHalf ? (options.lossScale ?? new LossScale()) : undefined;
    const { adapter } = trained;
    const { dropout: rate = 0 } = adapter.config as { dropout?: number };
    const parts = { model, adapter, shape, objective, lossWeights, lossMask };
    const feedsWith = (masks: StepDropout["masks"]) => new StepFeeds(parts, { masks, rate, seed }, trained.isCurrent);
    if (hasGraphForm(optimizer) && canBeOnDevice(average) && (await staysOnDevice(model, options))) {
      const graph = new Graph();
      const built = buildDeviceStep(graph, parts, { ...options, optimizer });
      const compiled = await compile(graph, { ...model.runtime, precision, ioBinding: built.ioBinding });
      const feeds = feedsWith(built.masks);
      const device = new DeviceStep(compiled, built, trained, feeds, optimizer, average, options.rateOf, lossScale);
      return new TrainStep(trained, parts, options, feeds, { device }, lossScale);
    }
    if (options.stateOnDevice) {
      throw new ConfigError(
        optimizer instanceof Optimizer && !hasGraphForm(optimizer)
          ? `compileTrainStep: stateOnDevice needs an optimizer with a graph form (AdamW, Lion, ScheduleFreeAdamW); got ` +
              `${optimizer.name}. Leave stateOnDevice out: its steps are done in main memory.`
          : "compileTrainStep: stateOnDevice needs an optimizer of this library, an average of it or none, and Node.",
      );
    }
    const masks = new Map<string, readonly number[]>();
    const build = (graph: Graph, batchSize: number) => {
      const own = buildTrainStep(graph, { ...parts, shape: { ...shape, batchSize } }, options);
      for (const [name, [, ...rest]] of own) masks.set(name, [shape.batchSize, ...rest]);
    };
    const { batchSize } = shape;
    const perSample = [SAMPLE_LOSSES];
    const runtime = {
      ...{ ...model.runtime, precision, batchSize, parameterBytes: model.weights.float32Bytes, perSample },
      isDivisible: !adapter.hasWholeBatchLoss,
    };
    const graph = await compileDataParallel(build, runtime);
    return new TrainStep(trained, parts, options, feedsWith(masks), { graph }, lossScale);
  }

  /**
   * The trained tensors under their stacked names, with current values.
   *
   * Where the state is on the device, they are current when this is asked for, not after further steps.
   */
  get parameters(): ReadonlyMap<string, Tensor<"float32">> {
    this.trained.residence.syncToHost();
    return this.trained.parameters;
  }

  /** Steps of the optimizer that `compileTrainStep` was given, where the state stays on the device. */
  get deviceSteps(): DeviceStep | undefined {
    return this.computation.device;
  }

  /**
   * Losses and the gradient of `loss` for every tensor of `parameters`. Changes nothing.
   *
   * `loss` is the sum of the objective's terms (`mse`) and the adapter's (`fecl`), weighted. Dropout masks of a sample
   * depend only on the seed and on its latents, so that the same batch gives the same result, divided or not.
   *
   * @throws {ShapeError} If the batch does not fit what the step was compiled for.
   */
  async compute(batch: TrainStepInputs): Promise<LossesAndGradients> {
    const { graph, device } = this.computation;
    if (device) return device.compute(batch);
    const feeds = this.feeds.training(batch);
    const { lossScale } = this;
    for (;;) {
      const scaling = lossScale && { [LOSS_SCALE]: tensor(Float32Array.of(lossScale.value), []) };
      const result = await graph.run(feeds, { ...Object.fromEntries(this.parameters), ...scaling });
      const gradients = new Map<string, Float32Array>();
      for (const name of this.trained.parameters.keys()) {
        gradients.set(name, result[`gradient.${name}`]!.data as Float32Array);
      }
      const losses = lossesOf(result, lossNamesOf(this.parts));
      // What overflowed is computed again with a smaller factor; what is not finite without one is the caller's business.
      const overflowed = lossScale && Number.isFinite(losses.loss) && ![...gradients.values()].every(allFinite);
      if (overflowed && lossScale.backOff()) continue;
      return { losses, gradients, ...sampleLossesOf(result, batch) };
    }
  }

  /**
   * One step of the optimizer, and one update of the average where there is one. Steps that are asked for before others
   * are done follow them.
   *
   * @throws {TrainingError} If the loss or a gradient is not finite; the parameters are then unchanged.
   * @throws {ConfigError} If the step was compiled without an optimizer.
   */
  async run(batch: TrainStepInputs): Promise<Losses> {
    const { optimizerStep } = this;
    if (!optimizerStep) {
      throw new ConfigError("run: the step was compiled without an optimizer; give compileTrainStep one.");
    }
    const advice = () => "The parameters are unchanged; lower the learning rate or clip gradients.";
    // Gradients of two overlapping steps would be of the same parameters.
    const step = this.lastStep.then(() => optimizerStep.run([batch], { name: "run", advice }));
    this.lastStep = step.catch(() => undefined);
    return (await step).losses;
  }

  /** Losses and gradients under the state dict's names, one tensor per expert. Changes nothing. */
  async gradients(batch: TrainStepInputs): Promise<Losses & { gradients: Map<string, Tensor<"float32">> }> {
    const { gradients, losses } = await this.compute(batch);
    return Object.assign({ gradients: this.trained.adapter.toStateDict(gradients) }, losses);
  }

  /** Losses without dropout and without gradients. Changes nothing. */
  async evaluate(batch: TrainStepInputs): Promise<Losses> {
    const feeds = { ...this.feeds.evaluation(batch), ...Object.fromEntries(this.parameters) };
    if (!this.evaluation) {
      const graph = new Graph();
      buildLosses(graph, this.parts, false);
      this.evaluation = compile(graph, this.parts.model.runtime);
      this.evaluation.catch(() => {
        this.evaluation = undefined;
      });
    }
    return lossesOf(await (await this.evaluation).run(feeds), lossNamesOf(this.parts));
  }

  /**
   * Frees the memory of what was compiled in main memory, after the steps that were asked for; the next one loads it again,
   * without compiling. What is on a device stays there.
   */
  async unload(): Promise<void> {
    await this.lastStep;
    await this.computation.graph?.unload();
    const { evaluation } = this;
    this.evaluation = undefined;
    await (await evaluation)?.release();
  }

  /** Frees what was compiled, after the steps that were asked for. */
  async release(): Promise<void> {
    await this.lastStep;
    const { graph, device } = this.computation;
    await (device ?? graph).release();
    await (await this.evaluation)?.release();
  }

  /** As {@link release}: a step cannot be compiled again. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Options with their older names. */
const SYNONYMS = [
  ["latentHeight", "height"],
  ["latentWidth", "width"],
  ["maxGradientNorm", "gradientClip"],
] as const;

/** @throws {ConfigError} If a size is not a positive integer, or an option has two values. */
function shapeOf(options: TrainStepOptions): DenoiserShape {
  for (const [name, older] of SYNONYMS) {
    const [given, same] = [options[name], options[older]];
    if (given === undefined || same === undefined || given === same) continue;
    throw new ConfigError(`compileTrainStep: ${name} is ${given}, and ${older}, the same option, ${same}; give one.`);
  }
  const { batchSize, tokens = 77 } = options;
  const latentHeight = options.latentHeight ?? options.height!;
  const latentWidth = options.latentWidth ?? options.width!;
  const shape = { batchSize, latentHeight, latentWidth, tokens };
  for (const [name, value] of Object.entries(shape)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new ConfigError(`compileTrainStep: ${name} must be a positive integer; got ${value}.`);
    }
  }
  return shape;
}

/** The option under its name or its older one. */
const maxGradientNormOf = ({ maxGradientNorm, gradientClip }: TrainStepOptions): number | undefined =>
  maxGradientNorm ?? gradientClip;

async function staysOnDevice({ runtime }: Denoiser, { stateOnDevice }: TrainStepOptions): Promise<boolean> {
  return supportsIoBinding() && (stateOnDevice ?? isGpu(await deviceOf(runtime)));
}
