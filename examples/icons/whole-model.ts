// Trains a whole denoiser, alone or together with its text encoder: every weight is a graph input with a gradient.

import { gradients } from "../../src/autodiff/index.js";
import type { DenoiserShape } from "../../src/diffusion/index.js";
import { ConfigError } from "../../src/errors.js";
import type { Graph, Value } from "../../src/graph/index.js";
import * as ops from "../../src/graph/index.js";
import { type CLIPTextModel, clipTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { ModelWeights, Scope, TrainableParameters } from "../../src/nn/index.js";
import { compileDataParallel, type DataParallelGraph, type RuntimeOptions } from "../../src/runtime/index.js";
import { Tensor } from "../../src/tensor/tensor.js";
import type { DiffusionBatch, LossesAndGradients, Trainable } from "../../src/training/trainable.js";
import type { ReplaceableDenoiser } from "../../src/training/whole-denoiser.js";

const DENOISER = "unet.";
const TEXT_ENCODER = "text_encoder.";

/** What a text encoder gives a denoiser, so that nobody feeds it. */
const OF_TEXT = ["encoderHiddenStates", "pooledProjections"];

/** Shapes that a whole-model step is compiled for. */
export interface WholeModelOptions extends RuntimeOptions {
  batchSize: number;
  /** Latent size. */
  height: number;
  width: number;
  tokens: number;
  /**
   * Computes activations again in the backward pass instead of keeping them: less memory, the same gradients, about a
   * second forward pass more time at most. Default false.
   */
  gradientCheckpointing?: boolean;
  /** Factors of the squared error by latent channel, `[C]`, of mean 1; 1 everywhere by default. */
  channelWeights?: Float32Array;
}

/** All weights of a denoiser, and of its text encoder where one is given, as trainable parameters. */
export class WholeModel implements Trainable {
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;

  private constructor(
    private readonly denoiser: ReplaceableDenoiser,
    private readonly textEncoder: CLIPTextModel | undefined,
    parameters: ReadonlyMap<string, Tensor<"float32">>,
    private readonly compiled: DataParallelGraph,
    private readonly trained: readonly string[],
  ) {
    this.parameters = parameters;
  }

  /**
   * Compiles forward, mean squared error and the gradients of all weights into one graph.
   *
   * @throws {ConfigError} If a model's weights are not in memory.
   */
  static async compile(
    models: { denoiser: ReplaceableDenoiser; textEncoder?: CLIPTextModel },
    options: WholeModelOptions,
  ): Promise<WholeModel> {
    const { denoiser, textEncoder } = models;
    const parameters = new Map([
      ...prefixed(DENOISER, denoiser),
      ...(textEncoder ? prefixed(TEXT_ENCODER, textEncoder) : []),
    ]);
    const trained: string[] = [];
    const build = (graph: Graph, batchSize: number) => {
      const source = new TrainableParameters(parameters, "whole model", DENOISER);
      const textSource = new TrainableParameters(parameters, "whole model", TEXT_ENCODER);
      const { height: latentHeight, width: latentWidth, tokens } = options;
      const shape: DenoiserShape = { batchSize, latentHeight, latentWidth, tokens };
      const inputs = denoiser.declareInputs(graph, shape, textEncoder ? OF_TEXT : []);
      if (textEncoder) {
        const ids = graph.input("inputIds", "int64", [batchSize, tokens]);
        const states = clipTextModel(new Scope(graph, textSource), { inputIds: ids }, textEncoder.config);
        inputs.encoderHiddenStates = states;
        // Every place after the words has seen them all.
        inputs.pooledProjections = ops.reshape(ops.reduceMean(states, [1]), [batchSize, states.shape[2]!]);
      }
      const output = denoiser.build(new Scope(graph, source), inputs);
      const target = graph.input("target", "float32", output.shape);
      const difference = ops.sub(output, target);
      const squared = ops.mul(difference, difference);
      const mse = ops.reduceMean(squared);
      const { channelWeights: factors } = options;
      const loss = factors
        ? ops.reduceMean(ops.mul(squared, graph.constant(new Tensor("float32", [1, factors.length, 1, 1], factors))))
        : mse;
      const wanted: [string, Value][] = [...source.values, ...textSource.values];
      const values = wanted.map(([, value]) => value);
      const recompute = options.gradientCheckpointing ?? false;
      gradients(loss, values, { recompute }).forEach((gradient, i) => {
        const [name] = wanted[i]!;
        graph.output(`gradient.${name}`, gradient);
        trained.push(name);
      });
      graph.output("mse", mse);
      graph.output("loss", loss);
    };
    const parameterBytes = denoiser.weights.float32Bytes + (textEncoder?.weights.float32Bytes ?? 0);
    const compiled = await compileDataParallel(build, { ...options, parameterBytes });
    return new WholeModel(denoiser, textEncoder, parameters, compiled, trained);
  }

  async compute(batch: DiffusionBatch): Promise<LossesAndGradients> {
    const { target, inputIds, ...inputs } = batch;
    if (this.textEncoder ? !inputIds : !inputs.encoderHiddenStates) {
      throw new ConfigError(`WholeModel: the batch lacks ${this.textEncoder ? "inputIds" : "encoderHiddenStates"}.`);
    }
    const feeds: Record<string, Tensor> = { ...this.denoiser.feedsOf(inputs), target };
    if (this.textEncoder) {
      delete feeds.encoderHiddenStates;
      feeds.inputIds = inputIds!;
    }
    const weights = Object.fromEntries(this.trained.map((name) => [name, this.parameters.get(name)!]));
    const result = await this.compiled.run(feeds, weights);
    const gradients = new Map(this.trained.map((name) => [name, result[`gradient.${name}`]!.data as Float32Array]));
    const numberOf = (name: string): number => (result[name]!.data as Float32Array)[0]!;
    return { losses: { loss: numberOf("loss"), mse: numberOf("mse") }, gradients };
  }

  /** Puts weights (by default the trained ones) into the models, which then predict with them. */
  async apply(weights: ReadonlyMap<string, Tensor<"float32">> = this.parameters): Promise<void> {
    await this.denoiser.replaceWeights(weightsOf(weights, DENOISER));
    if (this.textEncoder) await this.textEncoder.replaceWeights(weightsOf(weights, TEXT_ENCODER));
  }

  async release(): Promise<void> {
    await this.compiled.release();
  }
}

function prefixed(prefix: string, model: { weights: ModelWeights }): [string, Tensor<"float32">][] {
  return [...model.weights.weights].map(([name, weight]) => {
    if (!("tensor" in weight)) {
      throw new ConfigError(
        `WholeModel: the weight "${name}" lies in a file; whole-model training needs it in memory.`,
      );
    }
    return [prefix + name, inSharedMemory(weight.tensor)];
  });
}

/** A copy that worker threads read by themselves, side by side. */
function inSharedMemory({ data, shape }: Tensor<"float32">): Tensor<"float32"> {
  const shared = new Float32Array(new SharedArrayBuffer(data.byteLength));
  shared.set(data);
  return new Tensor("float32", shape, shared);
}

function weightsOf(weights: ReadonlyMap<string, Tensor<"float32">>, prefix: string): ModelWeights {
  const own = [...weights].filter(([name]) => name.startsWith(prefix));
  const copied = own.map(([name, tensor]) => [name.slice(prefix.length), { shape: tensor.shape, tensor }] as const);
  return new ModelWeights(new Map(copied), "trained weights");
}
