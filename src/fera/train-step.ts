// One training step of FeRA as one graph: indicator, router, adapted and base pass, both losses, and the gradients of
// everything that is trained.

import { gradients } from "../autodiff/index.js";
import { ConfigError, ShapeError, TrainingError } from "../errors.js";
import * as ops from "../graph/index.js";
import { Graph, type Value } from "../graph/index.js";
import {
  type UNet2DConditionModel,
  type UNetInputs,
  type UNetShape,
  type UNetValues,
  unet,
  unetFeeds,
  unetInputs,
  unetShapeOf,
} from "../models/unet-2d-condition.js";
import { Scope } from "../nn/index.js";
import { type CompiledGraph, compile } from "../runtime/index.js";
import { Generator } from "../tensor/random.js";
import { type Tensor, tensor, toBytes } from "../tensor/tensor.js";
import { clipGradients } from "../training/optimizers.js";
import type { DiffusionBatch, Losses, Trainable } from "../training/trainable.js";
import { type AdapterLayout, ROUTER, stackedShapes, unstackState } from "./adapter-state.js";
import { feclLoss } from "./consistency-loss.js";
import { expandGates, RoutedExperts } from "./experts.js";
import type { FeRAConfig } from "./fera-config.js";
import { bandEnergies, frequencyBands } from "./indicator.js";
import { route } from "./router.js";

/** What updates parameters in place; `AdamW` is one. */
export interface StepOptimizer {
  step(parameters: ReadonlyMap<string, Float32Array>, gradients: ReadonlyMap<string, Float32Array>): void;
}

/** Options of `compileTrainStep`. */
export interface TrainStepOptions {
  batchSize: number;
  /** Latent size. */
  height: number;
  width: number;
  /** Text tokens. Default 77. */
  tokens?: number;
  /** Needed for `run` only. */
  optimizer?: StepOptimizer;
  /** Largest common norm of all gradients, above 0. Not clipped by default. */
  gradientClip?: number;
  /** Seeds the dropout masks; each batch has its own, drawn from this and from its latents. Default 0. */
  dropoutSeed?: number;
  /**
   * Computes activations again in the backward pass instead of keeping them: less memory, the same gradients, about a
   * second adapted forward pass more time at most. Default false.
   */
  gradientCheckpointing?: boolean;
}

/** One batch: the UNet's inputs, and what it must predict. */
export interface TrainStepInputs extends UNetInputs {
  /** Noise (or velocity, or flow), float32 like the UNet's output. */
  target: Tensor;
}

/** An adapted pass under construction. */
export interface AdaptedPass {
  inputs: UNetValues;
  /** `[B, K]`. */
  energies: Value;
  /** `[B, E]`. */
  weights: Value;
  output: Value;
  /** The trainable tensors as graph inputs, under their stacked names. */
  parameters: Map<string, Value>;
  /** Dropout masks to be fed, by name. */
  masks: ReadonlyMap<string, readonly number[]>;
}

/** Declares the router's parameters, and adds indicator and router to a graph. */
export function buildRoute(
  latents: Value,
  layout: AdapterLayout,
  config: FeRAConfig,
  known = new Map<string, Value>(),
) {
  const router = new Map<string, Value>();
  for (const [name, shape] of stackedShapes(layout)) {
    if (!name.startsWith(ROUTER)) continue;
    const value = known.get(name) ?? latents.graph.input(name, "float32", shape);
    router.set(name.slice(ROUTER.length), value);
  }
  const energies = bandEnergies(frequencyBands(latents, config));
  return { energies, weights: route(energies, router, config.routerTau) };
}

/**
 * Adds indicator, router and the adapted UNet to a graph.
 *
 * @param options.scale - Factor on all experts, a scalar.
 * @param options.dropout - Whether dropout masks are taken as inputs.
 */
export function buildAdaptedPass(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  options: { scale?: Value; dropout?: boolean } = {},
): AdaptedPass {
  const inputs = unetInputs(graph, model.config, shape);
  const parameters = new Map<string, Value>();
  for (const [name, dimensions] of stackedShapes(layout)) {
    parameters.set(name, graph.input(name, "float32", dimensions));
  }
  const { energies, weights } = buildRoute(inputs.latents, layout, config, parameters);
  const gates = expandGates(weights, config.rank, config.alpha);
  const scaled = options.scale ? ops.mul(gates, options.scale) : gates;
  const experts = new RoutedExperts(parameters, scaled, options.dropout ?? false);
  const output = unet(new Scope(graph, model.weights, experts), inputs, model.config);
  return { inputs, energies, weights, output, parameters, masks: experts.masks };
}

/** A compiled training step over parameters that the caller may change in place. */
export class TrainStep implements Trainable {
  private evaluation: Promise<CompiledGraph> | undefined;

  private constructor(
    readonly parameters: ReadonlyMap<string, Tensor<"float32">>,
    private readonly model: UNet2DConditionModel,
    private readonly layout: AdapterLayout,
    private readonly config: FeRAConfig,
    private readonly shape: UNetShape,
    private readonly options: TrainStepOptions,
    private readonly masks: ReadonlyMap<string, readonly number[]>,
    private readonly compiled: CompiledGraph,
    private readonly isCurrent: () => boolean,
  ) {}

  /**
   * Compiles the step.
   *
   * @param adapter - The trainable tensors under their stacked names, and whether they are still the model's.
   * @throws {ConfigError} If a size is not a positive integer or the clipping norm not above 0.
   */
  static async compile(
    model: UNet2DConditionModel,
    adapter: { parameters: ReadonlyMap<string, Tensor<"float32">>; layout: AdapterLayout; isCurrent: () => boolean },
    config: FeRAConfig,
    options: TrainStepOptions,
  ): Promise<TrainStep> {
    const { batchSize, height, width, tokens = 77, gradientClip } = options;
    const shape: UNetShape = { batchSize, height, width, tokens };
    for (const [name, value] of Object.entries(shape)) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new ConfigError(`compileTrainStep: ${name} must be a positive integer; got ${value}.`);
      }
    }
    if (gradientClip !== undefined && !(gradientClip > 0)) {
      throw new ConfigError(`compileTrainStep: gradientClip must be above 0; got ${gradientClip}.`);
    }
    const graph = new Graph();
    const pass = buildTrainStep(graph, model, adapter.layout, config, shape, options);
    const compiled = await compile(graph, model.runtime);
    const { parameters, layout, isCurrent } = adapter;
    return new TrainStep(parameters, model, layout, config, shape, options, pass.masks, compiled, isCurrent);
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
    const feeds = this.feeds(batch);
    if (this.masks.size > 0) Object.assign(feeds, this.dropoutMasks(batch.latents));
    const result = await this.compiled.run(feeds);
    const slopes = new Map<string, Float32Array>();
    for (const name of this.parameters.keys()) slopes.set(name, result[`gradient.${name}`]!.data as Float32Array);
    return { ...lossesOf(result), gradients: slopes };
  }

  /**
   * One step of the optimizer.
   *
   * @throws {TrainingError} If the loss or a gradient is not finite; the parameters are then unchanged.
   * @throws {ConfigError} If the step was compiled without an optimizer.
   */
  async run(batch: TrainStepInputs): Promise<Losses> {
    const { optimizer, gradientClip } = this.options;
    if (!optimizer)
      throw new ConfigError("run: the step was compiled without an optimizer; give compileTrainStep one.");
    const { gradients: slopes, ...losses } = await this.compute(batch);
    if (!Number.isFinite(losses.loss)) {
      throw new TrainingError(`run: the loss is ${losses.loss} (mse ${losses.mse}, fecl ${losses.fecl}).`);
    }
    for (const [name, slope] of slopes) {
      if (!slope.every(Number.isFinite)) throw new TrainingError(`run: the gradient of "${name}" is not finite.`);
    }
    if (gradientClip !== undefined) clipGradients(slopes, gradientClip);
    optimizer.step(new Map([...this.parameters].map(([name, { data }]) => [name, data])), slopes);
    return losses;
  }

  /** Losses and gradients under the state dict's names, one tensor per expert. Changes nothing. */
  async gradients(batch: TrainStepInputs): Promise<Losses & { gradients: Map<string, Tensor<"float32">> }> {
    const { gradients: slopes, ...losses } = await this.compute(batch);
    return { ...losses, gradients: unstackState(slopes, this.layout) };
  }

  /** Losses without dropout and without gradients. Changes nothing. */
  async evaluate(batch: TrainStepInputs): Promise<Losses> {
    const feeds = this.feeds(batch);
    if (!this.evaluation) {
      const graph = new Graph();
      buildLosses(graph, this.model, this.layout, this.config, this.shape, false);
      this.evaluation = compile(graph, this.model.runtime);
      this.evaluation.catch(() => {
        this.evaluation = undefined;
      });
    }
    return lossesOf(await (await this.evaluation).run(feeds));
  }

  /** Frees what was compiled. */
  async release(): Promise<void> {
    await this.compiled.release();
    await (await this.evaluation)?.release();
  }

  private feeds(batch: DiffusionBatch | TrainStepInputs): Record<string, Tensor> {
    const { latents, timesteps, encoderHiddenStates, addedConditions, target } = batch;
    if (!this.isCurrent()) {
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
    return { ...unetFeeds(inputs), target, ...Object.fromEntries(this.parameters) };
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

/**
 * Adds the whole step to a graph: the losses `mse`, `fecl` and `loss`, and `gradient.NAME` of every parameter, as
 * outputs.
 */
export function buildTrainStep(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  options: Pick<TrainStepOptions, "gradientCheckpointing"> = {},
): AdaptedPass {
  const pass = buildLosses(graph, model, layout, config, shape, config.dropout > 0);
  const names = [...pass.parameters.keys()];
  const recompute = options.gradientCheckpointing ?? false;
  gradients(pass.loss, [...pass.parameters.values()], { recompute }).forEach((gradient, i) => {
    graph.output(`gradient.${names[i]}`, gradient);
  });
  return pass;
}

/** Both passes and both losses, with the losses as outputs. */
function buildLosses(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  dropout: boolean,
): AdaptedPass & { loss: Value } {
  const pass = buildAdaptedPass(graph, model, layout, config, shape, { dropout });
  const target = graph.input("target", "float32", pass.output.shape);
  const difference = ops.sub(pass.output, target);
  const mse = ops.reduceMean(ops.mul(difference, difference));
  let loss = mse;
  if (config.feclWeight > 0) {
    const base = unet(model.frozenScope(graph), pass.inputs, model.config);
    const fecl = ops.mul(feclLoss(base, pass.output, target, config), config.feclWeight);
    loss = ops.add(mse, fecl);
    graph.output("fecl", fecl);
    graph.output("loss", loss);
  }
  graph.output("mse", mse);
  return { ...pass, loss };
}

function lossesOf(result: Record<string, Tensor>): Losses {
  const scalar = (name: string): number | undefined => (result[name]?.data as Float32Array | undefined)?.[0];
  const mse = scalar("mse")!;
  return { loss: scalar("loss") ?? mse, mse, fecl: scalar("fecl") ?? 0 };
}

/** FNV-1a over bytes, started from a seed: 32 bits. */
function hash(bytes: Uint8Array, seed: number): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}
