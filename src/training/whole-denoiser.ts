// A denoiser all of whose weights are trained: full fine-tuning, by the same step, objective and trainer as adapters have.

import type { AdapterConfig, AttachedAdapter, StepAdapter } from "../adapters/adapter.js";
import type { CompiledTrainStep, TrainStepOptions } from "../adapters/train-step-options.js";
import type { Denoiser, DenoiserInputs, DenoiserShape } from "../diffusion/index.js";
import { FormatError } from "../errors.js";
import { Graph, type Value } from "../graph/index.js";
import { type LayerAdapters, ModelWeights, type ParameterSource, Scope, type Weight } from "../nn/index.js";
import { DeviceResident } from "../runtime/index.js";
import { readFileAt } from "../storage/storage.js";
import { sizeOf, Tensor } from "../tensor/tensor.js";
import type { StepCompiler } from "./bucketed-train-step.js";
import { TrainStep } from "./train-step.js";

/** A denoiser whose weights can be replaced; every model of this library is one. */
export type ReplaceableDenoiser = Denoiser & { replaceWeights(weights: ModelWeights): Promise<void> };

/** Copies of a denoiser's weights as parameters. The denoiser itself is as it was until {@link WholeDenoiser.apply}. */
export class WholeDenoiser implements StepCompiler {
  private readonly residence = new DeviceResident();

  private constructor(
    readonly model: ReplaceableDenoiser,
    readonly parameters: ReadonlyMap<string, Tensor<"float32">>,
  ) {}

  /**
   * Reads the weights that the model's graph has; tables of known numbers, such as positions, stay as they are.
   *
   * @throws {FormatError} If one is missing, or is not float32.
   */
  static async of(model: ReplaceableDenoiser): Promise<WholeDenoiser> {
    const shapes = new Map<string, readonly number[]>();
    const recorder: ParameterSource = {
      parameter(graph, path, shape, { kind }) {
        if (kind !== "values") shapes.set(path, shape);
        return model.weights.parameter(graph, path, shape);
      },
    };
    const graph = new Graph();
    model.build(new Scope(graph, recorder), model.declareInputs(graph, model.smallestShape));
    const parameters = new Map<string, Tensor<"float32">>();
    for (const [path, shape] of shapes) parameters.set(path, await inSharedMemory(model.weights, path, shape));
    return new WholeDenoiser(model, parameters);
  }

  /** Number of trained values. */
  get parameterCount(): number {
    return [...this.parameters.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** As `AdapterModel.compileTrainStep`. */
  compileTrainStep(options: TrainStepOptions): Promise<CompiledTrainStep> {
    const { model, parameters, residence } = this;
    const { weights } = model;
    const adapter = new AllWeights(new Map([...parameters].map(([name, { shape }]) => [name, shape])), weights);
    const isCurrent = () => model.weights === weights;
    return TrainStep.compile(new WithTrainedWeights(model), { adapter, parameters, residence, isCurrent }, options);
  }

  /** Puts weights, by default the trained ones, into the model, which then predicts with copies of them. */
  apply(weights: ReadonlyMap<string, Tensor<"float32">> = this.parameters): Promise<void> {
    const copies = [...weights].map(([name, { shape, data }]) => {
      return [name, { shape, tensor: new Tensor("float32", shape, Float32Array.from(data)) }] as const;
    });
    const all = new Map<string, Weight>([...this.model.weights.weights, ...copies]);
    return this.model.replaceWeights(new ModelWeights(all, "trained weights"));
  }
}

/** A copy that worker threads read by themselves, side by side. */
async function inSharedMemory(
  { weights, source }: ModelWeights,
  path: string,
  shape: readonly number[],
): Promise<Tensor<"float32">> {
  const weight = weights.get(path)!;
  const shared = new Float32Array(new SharedArrayBuffer(4 * sizeOf(shape)));
  if ("tensor" in weight) shared.set(weight.tensor.data);
  else {
    if (weight.dtype !== "float32") {
      throw new FormatError(source, `the weight "${path}" is ${weight.dtype}; only float32 weights can be trained.`);
    }
    new Uint8Array(shared.buffer).set(await readFileAt(weight.range.path, weight.range));
  }
  return new Tensor("float32", shape, shared);
}

/** All weights as if they were an adapter's tensors, so that a training step gives their gradients. */
class AllWeights implements StepAdapter {
  readonly lossNames = [];
  readonly config: AdapterConfig = { adapterType: "full", targetModules: [], toJSON: () => ({}) };

  constructor(
    readonly shapes: ReadonlyMap<string, readonly number[]>,
    private readonly tables: ModelWeights,
  ) {}

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>): AttachedAdapter {
    return { layers: new TrainedWeights(parameters, this.tables), masks: new Map(), reports: {} };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return new Map([...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, values.get(name)!)]));
  }
}

/** Changes no layer: what it carries are the weights themselves. */
class TrainedWeights implements LayerAdapters, ParameterSource {
  constructor(
    private readonly values: ReadonlyMap<string, Value>,
    private readonly tables: ModelWeights,
  ) {}

  apply(_layer: unknown, _x: Value, y: Value): Value {
    return y;
  }

  parameter(graph: Graph, path: string, shape: readonly number[]): Value {
    return this.values.get(path) ?? this.tables.parameter(graph, path, shape);
  }
}

/** The denoiser, whose layers read the weights of {@link TrainedWeights} where a graph has them. */
class WithTrainedWeights implements Denoiser {
  constructor(private readonly model: Denoiser) {}

  get className(): string {
    return this.model.className;
  }

  get weights(): ModelWeights {
    return this.model.weights;
  }

  get runtime() {
    return this.model.runtime;
  }

  get latentChannels(): number {
    return this.model.latentChannels;
  }

  get smallestShape(): DenoiserShape {
    return this.model.smallestShape;
  }

  shapeOf(inputs: DenoiserInputs): DenoiserShape {
    return this.model.shapeOf(inputs);
  }

  feedsOf(inputs: DenoiserInputs): Record<string, Tensor> {
    return this.model.feedsOf(inputs);
  }

  declareInputs(graph: Graph, shape: DenoiserShape, without?: readonly string[]): Record<string, Value> {
    return this.model.declareInputs(graph, shape, without);
  }

  build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value {
    return this.model.build(scope, inputs);
  }

  frozenScope(graph: Graph, adapters?: LayerAdapters): Scope {
    return adapters instanceof TrainedWeights ? new Scope(graph, adapters) : this.model.frozenScope(graph, adapters);
  }

  predict(inputs: DenoiserInputs): Promise<Tensor<"float32">> {
    return this.model.predict(inputs);
  }

  release(): Promise<void> {
    return this.model.release();
  }
}
