// One training step of any adapter on any denoiser, compiled: losses, gradients, and steps of an optimizer in main memory
// or on the device.

import type { AdapterState } from "../adapters/adapter-model.js";
import type { CompiledTrainStep, TrainStepInputs, TrainStepOptions } from "../adapters/train-step-options.js";
import type { Denoiser, DenoiserShape } from "../diffusion/index.js";
import { ConfigError, ShapeError, TrainingError } from "../errors.js";
import { Graph } from "../graph/index.js";
import {
  type CompiledGraph,
  compile,
  compileDataParallel,
  type DataParallelGraph,
  deviceOf,
  isGpu,
  supportsIoBinding,
} from "../runtime/index.js";
import { Generator } from "../tensor/random.js";
import { allFinite, flatValues, type Tensor, tensor, toBytes } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import { DeviceStep } from "./device-step.js";
import { clipGradients } from "./optimizers/gradient-clipping.js";
import { Optimizer } from "./optimizers/optimizer.js";
import { buildDeviceStep, buildLosses, buildTrainStep, lossesOf } from "./step-graph.js";
import type {
  DiffusionBatch,
  Losses,
  LossesAndGradients,
  OptimizerStepOptions,
  OptimizerSteps,
  Trainable,
} from "./trainable.js";

/** The adapters that a step trains. */
export interface TrainedAdapter extends AdapterState {
  /** Whether they are still the model's. */
  isCurrent: () => boolean;
}

/** What a step computes with: one graph that gives gradients, or one that also keeps and updates the state. */
type Computation = { graph: DataParallelGraph; device?: undefined } | { device: DeviceStep; graph?: undefined };

/** A compiled training step over parameters that the caller may change in place. */
export class TrainStep implements Trainable, CompiledTrainStep {
  private evaluation: Promise<CompiledGraph> | undefined;

  private constructor(
    private readonly trained: TrainedAdapter,
    private readonly model: Denoiser,
    private readonly shape: DenoiserShape,
    private readonly options: TrainStepOptions,
    private readonly masks: ReadonlyMap<string, readonly number[]>,
    private readonly computation: Computation,
  ) {}

  /**
   * Compiles the step.
   *
   * @throws {ConfigError} If a size is not a positive integer, the clipping norm not above 0, the average one of other
   *   parameters, or the state cannot stay on the device though it was asked for.
   */
  static async compile(model: Denoiser, trained: TrainedAdapter, options: TrainStepOptions): Promise<TrainStep> {
    const { batchSize, tokens = 77, optimizer, average } = options;
    const latentHeight = options.latentHeight ?? options.height;
    const latentWidth = options.latentWidth ?? options.width;
    for (const [name, value] of Object.entries({ batchSize, latentHeight, latentWidth, tokens })) {
      if (!Number.isSafeInteger(value) || value! < 1) {
        throw new ConfigError(`compileTrainStep: ${name} must be a positive integer; got ${value}.`);
      }
    }
    const shape: DenoiserShape = { batchSize, latentHeight: latentHeight!, latentWidth: latentWidth!, tokens };
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
    const { adapter } = trained;
    const make = (masks: ReadonlyMap<string, readonly number[]>, computation: Computation) =>
      new TrainStep(trained, model, shape, options, masks, computation);
    if (optimizer instanceof Optimizer && (await staysOnDevice(model, options))) {
      const graph = new Graph();
      const built = buildDeviceStep(graph, { model, adapter, shape }, { ...options, optimizer });
      const compiled = await compile(graph, { ...model.runtime, ioBinding: built.ioBinding });
      const step = new DeviceStep(compiled, built, trained, optimizer, average as ParameterAverage | undefined);
      return make(built.masks, { device: step });
    }
    if (options.stateOnDevice) {
      throw new ConfigError("compileTrainStep: stateOnDevice needs an optimizer of this library, and Node.");
    }
    const masks = new Map<string, readonly number[]>();
    const build = (graph: Graph, samples: number) => {
      const parts = { model, adapter, shape: { ...shape, batchSize: samples } };
      const own = buildTrainStep(graph, parts, options);
      for (const [name, [, ...rest]] of own) masks.set(name, [batchSize, ...rest]);
    };
    const runtime = { ...model.runtime, batchSize, parameterBytes: model.weights.float32Bytes };
    return make(masks, { graph: await compileDataParallel(build, runtime) });
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

  /**
   * Losses and the gradient of `loss` for every tensor of `parameters`. Changes nothing.
   *
   * `loss` is the sum of `mse` and the adapter's weighted terms, such as `fecl`. Dropout masks depend only on the seed and on the
   * batch's latents, so that the same batch gives the same result.
   *
   * @throws {ShapeError} If the batch does not fit what the step was compiled for.
   */
  async compute(batch: DiffusionBatch | TrainStepInputs): Promise<LossesAndGradients> {
    const feeds = this.trainingFeeds(batch);
    const { graph, device } = this.computation;
    if (device) return device.gradients(feeds);
    const result = await graph.run(feeds, Object.fromEntries(this.parameters));
    const gradients = new Map<string, Float32Array>();
    for (const name of this.trained.parameters.keys()) {
      gradients.set(name, result[`gradient.${name}`]!.data as Float32Array);
    }
    return { losses: lossesOf(result, this.trained.adapter.lossNames), gradients };
  }

  /** Steps of the optimizer that `compileTrainStep` was given, where the state stays on the device. */
  get optimizerSteps(): OptimizerSteps | undefined {
    const { device } = this.computation;
    if (!device) return undefined;
    const { optimizer, average } = device;
    return { optimizer, average, step: async (batch, options) => device.run(this.trainingFeeds(batch), options) };
  }

  /**
   * One step of the optimizer, and one update of the average where there is one.
   *
   * @throws {TrainingError} If the loss or a gradient is not finite; the parameters are then unchanged.
   * @throws {ConfigError} If the step was compiled without an optimizer.
   */
  async run(batch: TrainStepInputs): Promise<Losses> {
    const { optimizer, average } = this.options;
    const maxGradientNorm = maxGradientNormOf(this.options);
    if (!optimizer)
      throw new ConfigError("run: the step was compiled without an optimizer; give compileTrainStep one.");
    const { device } = this.computation;
    if (device) {
      const options = { maxGradientNorm, accept: requireFinite };
      const { gradientNorm: _, ...losses } = await device.run(this.trainingFeeds(batch), options);
      return losses as Losses;
    }
    const { gradients, losses } = await this.compute(batch);
    requireFiniteLoss(losses);
    requireFiniteGradients(gradients);
    if (maxGradientNorm !== undefined) clipGradients(gradients, maxGradientNorm);
    optimizer.step(flatValues(this.parameters), gradients);
    average?.update();
    return losses;
  }

  /** Losses and gradients under the state dict's names, one tensor per expert. Changes nothing. */
  async gradients(batch: TrainStepInputs): Promise<Losses & { gradients: Map<string, Tensor<"float32">> }> {
    const { gradients, losses } = await this.compute(batch);
    return Object.assign({ gradients: this.trained.adapter.toStateDict(gradients) }, losses);
  }

  /** Losses without dropout and without gradients. Changes nothing. */
  async evaluate(batch: TrainStepInputs): Promise<Losses> {
    const feeds = { ...this.batchFeeds(batch), ...Object.fromEntries(this.parameters) };
    if (!this.evaluation) {
      const graph = new Graph();
      buildLosses(graph, { model: this.model, adapter: this.trained.adapter, shape: this.shape }, false);
      this.evaluation = compile(graph, this.model.runtime);
      this.evaluation.catch(() => {
        this.evaluation = undefined;
      });
    }
    return lossesOf(await (await this.evaluation).run(feeds), this.trained.adapter.lossNames);
  }

  /** Frees what was compiled. */
  async release(): Promise<void> {
    const { graph, device } = this.computation;
    await (device ?? graph).release();
    await (await this.evaluation)?.release();
  }

  /** All that the training graph takes, but for the trained tensors. */
  private trainingFeeds(batch: DiffusionBatch | TrainStepInputs): Record<string, Tensor> {
    const feeds = this.batchFeeds(batch);
    return this.masks.size > 0 ? { ...feeds, ...this.dropoutMasks(batch.latents) } : feeds;
  }

  private batchFeeds(batch: DiffusionBatch | TrainStepInputs): Record<string, Tensor> {
    const { target, ...inputs } = batch;
    if (!this.trained.isCurrent()) {
      throw new ConfigError(
        "train step: adapters of another kind or other base weights were loaded since; call compileTrainStep again.",
      );
    }
    const came = this.model.shapeOf(inputs);
    for (const [name, value] of Object.entries(this.shape)) {
      if (came[name] !== value) {
        throw new ShapeError(`train step: it was compiled for ${name}=${value}; got ${name}=${came[name]}.`);
      }
    }
    return { ...this.model.feedsOf(inputs), target };
  }

  private dropoutMasks(latents: Tensor): Record<string, Tensor> {
    const { dropout = 0 } = this.trained.adapter.config as { dropout?: number };
    const generator = new Generator(hash(toBytes(latents), this.options.dropoutSeed ?? 0));
    const kept = 1 / (1 - dropout);
    const masks: Record<string, Tensor> = {};
    for (const [name, shape] of this.masks) {
      const data = new Float32Array(shape.reduce((size, dimension) => size * dimension, 1));
      for (let i = 0; i < data.length; i++) data[i] = generator.uniform() < dropout ? 0 : kept;
      masks[name] = tensor(data, shape);
    }
    return masks;
  }
}

/** The option under its name or its older one. */
const maxGradientNormOf = ({ maxGradientNorm, gradientClip }: TrainStepOptions): number | undefined =>
  maxGradientNorm ?? gradientClip;

async function staysOnDevice({ runtime }: Denoiser, { stateOnDevice }: TrainStepOptions): Promise<boolean> {
  return supportsIoBinding() && (stateOnDevice ?? isGpu(await deviceOf(runtime)));
}

/** @throws {TrainingError} Naming the loss, or the first gradient, that is not finite. */
const requireFinite: OptimizerStepOptions["accept"] = (outcome, gradients) => {
  requireFiniteLoss(outcome);
  if (Number.isFinite(outcome.gradientNorm)) return;
  requireFiniteGradients(gradients());
  throw new TrainingError(`run: the norm of all gradients is ${outcome.gradientNorm}.`);
};

function requireFiniteGradients(gradients: ReadonlyMap<string, Float32Array>): void {
  for (const [name, gradient] of gradients) {
    if (!allFinite(gradient)) throw new TrainingError(`run: the gradient of "${name}" is not finite.`);
  }
}

function requireFiniteLoss({ loss, gradientNorm: _, ...terms }: Losses): void {
  if (Number.isFinite(loss)) return;
  const named = Object.entries(terms).map(([name, value]) => `${name} ${value}`);
  throw new TrainingError(`run: the loss is ${loss} (${named.join(", ")}).`);
}

/** FNV-1a over bytes, started from a seed: 32 bits. */
function hash(bytes: Uint8Array, seed: number): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}
