// One training step of FeRA, compiled: losses, gradients, and steps of an optimizer in main memory or on the device.

import { unstackState } from "../adapters/fera/adapter-state.js";
import type { FeRAConfig } from "../adapters/fera/fera-config.js";
import { ConfigError, ShapeError, TrainingError } from "../errors.js";
import { Graph } from "../graph/index.js";
import {
  type UNet2DConditionModel,
  type UNetShape,
  unetFeeds,
  unetShapeOf,
} from "../models/unet-2d-condition/unet-2d-condition.js";
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
import { DeviceStep } from "./device-step.js";
import { AdamW, clipGradients } from "./optimizers/adamw.js";
import { buildDeviceStep, buildLosses, buildTrainStep, lossesOf } from "./step-graph.js";
import type { TrainedAdapter, TrainStepInputs, TrainStepOptions } from "./train-step-options.js";
import type { DiffusionBatch, Losses, OptimizerStepOptions, OptimizerSteps, Trainable } from "./trainable.js";

/** What a step computes with: one graph that gives gradients, or one that also keeps and updates the state. */
type Computation = { graph: DataParallelGraph; device?: undefined } | { device: DeviceStep; graph?: undefined };

/** A compiled training step over parameters that the caller may change in place. */
export class TrainStep implements Trainable {
  private evaluation: Promise<CompiledGraph> | undefined;

  private constructor(
    private readonly adapter: TrainedAdapter,
    private readonly model: UNet2DConditionModel,
    private readonly config: FeRAConfig,
    private readonly shape: UNetShape,
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
  static async compile(
    model: UNet2DConditionModel,
    adapter: TrainedAdapter,
    config: FeRAConfig,
    options: TrainStepOptions,
  ): Promise<TrainStep> {
    const { batchSize, height, width, tokens = 77, gradientClip, optimizer, average } = options;
    const shape: UNetShape = { batchSize, height, width, tokens };
    for (const [name, value] of Object.entries(shape)) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new ConfigError(`compileTrainStep: ${name} must be a positive integer; got ${value}.`);
      }
    }
    if (gradientClip !== undefined && !(gradientClip > 0)) {
      throw new ConfigError(`compileTrainStep: gradientClip must be above 0; got ${gradientClip}.`);
    }
    if (average && !average.isOf(adapter.parameters)) {
      throw new ConfigError(
        "compileTrainStep: average must be one of this model's adapters; got one of other parameters. " +
          "Make it with new ParameterAverage(fera.parameters, decay), once the adapters are loaded.",
      );
    }
    const make = (masks: ReadonlyMap<string, readonly number[]>, computation: Computation) =>
      new TrainStep(adapter, model, config, shape, options, masks, computation);
    if (optimizer instanceof AdamW && (await staysOnDevice(model, options))) {
      const graph = new Graph();
      const { masks, packing, ioBinding } = buildDeviceStep(graph, model, adapter.layout, config, shape, options);
      const compiled = await compile(graph, { ...model.runtime, ioBinding });
      return make(masks, { device: new DeviceStep(compiled, packing, adapter, optimizer, average) });
    }
    if (options.stateOnDevice) {
      throw new ConfigError("compileTrainStep: stateOnDevice needs an AdamW as the optimizer, and Node.");
    }
    const masks = new Map<string, readonly number[]>();
    const build = (graph: Graph, samples: number) => {
      const pass = buildTrainStep(graph, model, adapter.layout, config, { ...shape, batchSize: samples }, options);
      for (const [name, [, ...rest]] of pass.masks) masks.set(name, [batchSize, ...rest]);
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
    this.adapter.loan.recall();
    return this.adapter.parameters;
  }

  /**
   * Losses and the gradient of `loss` for every tensor of `parameters`. Changes nothing.
   *
   * `loss` = `mse` + `fecl`; `fecl` is the weighted consistency loss. Dropout masks depend only on the seed and on the
   * batch's latents, so that the same batch gives the same result.
   *
   * @throws {ShapeError} If the batch does not fit what the step was compiled for.
   */
  async compute(batch: DiffusionBatch | TrainStepInputs): Promise<Losses & { gradients: Map<string, Float32Array> }> {
    const feeds = this.trainingFeeds(batch);
    const { graph, device } = this.computation;
    if (device) return device.gradients(feeds);
    const result = await graph.run(feeds, Object.fromEntries(this.parameters));
    const slopes = new Map<string, Float32Array>();
    for (const name of this.adapter.parameters.keys()) {
      slopes.set(name, result[`gradient.${name}`]!.data as Float32Array);
    }
    return { ...lossesOf(result), gradients: slopes };
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
    const { optimizer, average, gradientClip } = this.options;
    if (!optimizer)
      throw new ConfigError("run: the step was compiled without an optimizer; give compileTrainStep one.");
    const { device } = this.computation;
    if (device) {
      const options = { maxGradientNorm: gradientClip, accept: requireFinite };
      const { loss, mse, fecl } = await device.run(this.trainingFeeds(batch), options);
      return { loss, mse, fecl };
    }
    const { gradients: slopes, ...losses } = await this.compute(batch);
    requireFiniteLoss(losses);
    requireFiniteGradients(slopes);
    if (gradientClip !== undefined) clipGradients(slopes, gradientClip);
    optimizer.step(flatValues(this.parameters), slopes);
    average?.update();
    return losses;
  }

  /** Losses and gradients under the state dict's names, one tensor per expert. Changes nothing. */
  async gradients(batch: TrainStepInputs): Promise<Losses & { gradients: Map<string, Tensor<"float32">> }> {
    const { gradients: slopes, ...losses } = await this.compute(batch);
    return { ...losses, gradients: unstackState(slopes, this.adapter.layout) };
  }

  /** Losses without dropout and without gradients. Changes nothing. */
  async evaluate(batch: TrainStepInputs): Promise<Losses> {
    const feeds = { ...this.batchFeeds(batch), ...Object.fromEntries(this.parameters) };
    if (!this.evaluation) {
      const graph = new Graph();
      buildLosses(graph, this.model, this.adapter.layout, this.config, this.shape, false);
      this.evaluation = compile(graph, this.model.runtime);
      this.evaluation.catch(() => {
        this.evaluation = undefined;
      });
    }
    return lossesOf(await (await this.evaluation).run(feeds));
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
    const { latents, timesteps, encoderHiddenStates, addedConditions, target } = batch;
    if (!this.adapter.isCurrent()) {
      throw new ConfigError(
        "train step: adapters of another kind or other base weights were loaded since; call compileTrainStep again.",
      );
    }
    if (!encoderHiddenStates) throw new ConfigError("train step: the batch lacks encoderHiddenStates.");
    const inputs = { latents, timesteps, encoderHiddenStates, addedConditions };
    const came = unetShapeOf(inputs, this.model.config);
    for (const [name, value] of Object.entries(this.shape) as [keyof UNetShape, number][]) {
      if (came[name] !== value) {
        throw new ShapeError(`train step: it was compiled for ${name}=${value}; got ${name}=${came[name]}.`);
      }
    }
    return { ...unetFeeds(inputs), target };
  }

  private dropoutMasks(latents: Tensor): Record<string, Tensor> {
    const { dropout } = this.config;
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

async function staysOnDevice({ runtime }: UNet2DConditionModel, { stateOnDevice }: TrainStepOptions): Promise<boolean> {
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

function requireFiniteLoss({ loss, mse, fecl }: Losses): void {
  if (!Number.isFinite(loss)) throw new TrainingError(`run: the loss is ${loss} (mse ${mse}, fecl ${fecl}).`);
}

/** FNV-1a over bytes, started from a seed: 32 bits. */
function hash(bytes: Uint8Array, seed: number): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}
