// AdapterModel: a frozen denoiser with adapters of any kind on some of its layers.

import type { Denoiser, DenoiserInputs, DenoiserShape } from "../diffusion/index.js";
import { ConfigError } from "../errors.js";
import { Graph, type Value } from "../graph/index.js";
import { CompiledGraphs, compile, DeviceResident } from "../runtime/index.js";
import { Generator } from "../tensor/random.js";
import { flatValues, type Tensor, tensor } from "../tensor/tensor.js";
import type { Adapter, AdapterConfig, AdapterState, AttachableAdapter } from "./adapter.js";
import {
  ADAPTER_DATA,
  type AdapterData,
  encodeAdapter,
  type LoadedAdapter,
  readAdapter,
  writeAdapter,
} from "./adapter-format.js";
import { createAdapter, withUsualTargets } from "./create-adapter.js";
import { floatState } from "./float-state.js";
import { checkLayers, type TargetLayer, targetLayers } from "./target-layers.js";
import type { CompiledTrainStep, TrainStepOptions } from "./train-step-options.js";

/** Inputs of {@link AdapterModel.predict}. */
export interface AdapterModelInputs extends DenoiserInputs {
  /** False gives the frozen model's prediction. Default true. */
  adapters?: boolean;
  /** Factor on what the adapters change. Default 1. */
  adapterScale?: number;
}

/** A prediction, and what its adapters report of how they were mixed. B batch. */
export interface AdapterPrediction {
  /** `[B, C, H, W]`. */
  output: Tensor<"float32">;
  /** Band energies `[B, K]`, low to high, of adapters that are routed by them. */
  energies?: Tensor<"float32">;
  /** Gates `[B, E]`, of routed adapters. */
  gates?: Tensor<"float32">;
}

/** Any denoiser with adapters; `FeRAModel` is the one with FeRA. */
export class AdapterModel<Config extends AdapterConfig = AdapterConfig> {
  private current: AdapterState;
  private readonly available: readonly TargetLayer[];
  private readonly compiled: CompiledGraphs;
  /** Whether somebody outside can change the parameters' values, so that graphs take them as inputs at every run. */
  private isShared = false;
  private readonly givenConfig: Config;

  /**
   * Fresh adapters, which change nothing yet. Kinds that begin as something of the model's own weights (DoRA) are made by
   * {@link AdapterModel.create}.
   *
   * @param random - How they are drawn.
   * @param random.seed - Default 0.
   * @param random.begun - Values of `fromFrozenWeights`.
   * @throws {ConfigError} If the model is none, the configuration's targets name no layer of the model, its rank is
   *   larger than any of these layers can have, or the kind needs the model's weights.
   */
  constructor(
    readonly model: Denoiser,
    config: Config,
    { seed = 0, begun }: { seed?: number; begun?: ReadonlyMap<string, Tensor<"float32">> | undefined } = {},
  ) {
    if (typeof model?.declareInputs !== "function" || typeof model.build !== "function") {
      const came = (model as object | undefined)?.constructor.name ?? String(model);
      throw new ConfigError(`${this.constructor.name}: the model must be a denoiser, such as pipe.unet; got ${came}.`);
    }
    this.givenConfig = config;
    this.available = targetLayers(model);
    const adapter = createAdapter(withUsualTargets(config, model.usualTargets), this.available);
    if (adapter.fromWeights && !begun) {
      throw new ConfigError(
        `${this.constructor.name}: a fresh adapter of the kind ${config.adapterType} begins with norms of the model's ` +
          "weights; make it with await AdapterModel.create(model, config).",
      );
    }
    const drawn = adapter.initialize(new Generator(seed));
    this.current = {
      adapter,
      parameters: begun ? new Map([...drawn, ...begun]) : drawn,
      residence: new DeviceResident(),
    };
    this.compiled = new CompiledGraphs(model.runtime);
  }

  /**
   * Fresh adapters of any kind, those included that begin as something of the model's own weights.
   *
   * @throws {ConfigError} As the constructor.
   */
  static async create<Config extends AdapterConfig>(
    model: Denoiser,
    config: Config,
    { seed = 0 }: { seed?: number } = {},
  ): Promise<AdapterModel<Config>> {
    const resolved = withUsualTargets(config, model.usualTargets);
    const begun = await fromFrozenWeights(createAdapter(resolved, targetLayers(model)), model);
    return new AdapterModel(model, resolved, { seed, begun });
  }

  /** A model of the same kind on the same layers around the same denoiser, with copies of the values. */
  copy(): AdapterModel<Config> {
    const copied = new AdapterModel(this.model, this.config, { begun: new Map() });
    copied.useAdapter({ config: this.config, state: this.stateDict() });
    return copied;
  }

  get config(): Config {
    return this.current.adapter.config as Config;
  }

  /** The adapter on the layers that it has now. */
  get adapter(): Adapter {
    return this.current.adapter;
  }

  /** The adapted layers. */
  get layers(): readonly TargetLayer[] {
    return this.current.adapter.layers;
  }

  /**
   * The trained tensors, by the names of the adapter's `shapes`.
   *
   * Current when asked for: a training step whose state is on the device brings it back first.
   */
  get parameters(): ReadonlyMap<string, Tensor<"float32">> {
    this.isShared = true;
    return this.values;
  }

  /**
   * The adapter and its values, for a graph that holds it among others.
   *
   * @internal
   */
  get attachable(): AttachableAdapter {
    return { adapter: this.current.adapter, parameters: this.values };
  }

  /** Number of trainable values. */
  get parameterCount(): number {
    let count = 0;
    for (const { size } of this.current.parameters.values()) count += size;
    return count;
  }

  /** Copies of all trained tensors under their names in files. */
  stateDict(): Map<string, Tensor<"float32">> {
    return this.current.adapter.toStateDict(flatValues(this.values));
  }

  /**
   * Takes the tensors of a state dict; the layers that it names become the adapted ones.
   *
   * @throws {FormatError} If tensors are missing or do not fit each other or the model.
   * @throws {ShapeError} If ranks or counts are not the configuration's. Nothing is changed in either case.
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    const source = "loadStateDict";
    this.install(this.current.adapter.withLayersOf(state, source), floatState(state, source), source);
  }

  /**
   * The adapted prediction, without dropout.
   *
   * @returns `[B, C, H, W]`.
   * @throws {ShapeError} If an input does not fit the model.
   */
  async predict(inputs: AdapterModelInputs): Promise<Tensor<"float32">> {
    if (inputs.adapters === false) return this.model.predict(inputs);
    return (await this.predictWithReports(inputs)).output;
  }

  /** As {@link predict}, with what the adapters report. */
  async predictWithReports(inputs: AdapterModelInputs): Promise<AdapterPrediction> {
    const { adapters = true, adapterScale = 1 } = inputs;
    if (!Number.isFinite(adapterScale)) throw new ConfigError(`adapterScale: must be finite; got ${adapterScale}.`);
    if (!adapters) return { output: await this.model.predict(inputs) };
    const shape = this.model.shapeOf(inputs);
    const build = (graph: Graph, parameters: Map<string, Value>) => this.buildPrediction(graph, parameters, shape);
    const feeds = { ...this.model.feedsOf(inputs), adapterScale: tensor(Float32Array.of(adapterScale), []) };
    const result = await this.runGraph(`predict ${JSON.stringify(shape)}`, build, feeds);
    return result as Record<string, Tensor<"float32">> & AdapterPrediction;
  }

  /**
   * Compiles one training step: forward, base pass where a loss needs it, all losses and all gradients in one graph.
   *
   * The result also serves a trainer. Training code is loaded when this is called.
   *
   * @throws {ConfigError} If an option is invalid.
   */
  async compileTrainStep(options: TrainStepOptions): Promise<CompiledTrainStep> {
    const { TrainStep } = await import("../training/train-step.js");
    return TrainStep.compile(this.model, this.trained(), options);
  }

  /**
   * What a training step changes. Values are taken as inputs by all graphs from now on.
   *
   * @internal
   */
  trained(): AdapterState & { isCurrent: () => boolean } {
    this.isShared = true;
    const { current, model } = this;
    const { weights } = model;
    const isCurrent = () => this.current.parameters === current.parameters && model.weights === weights;
    return { ...current, isCurrent };
  }

  /**
   * The adapters as the bytes of a `.safetensors` file with their configuration: what a page offers as a download.
   *
   * `loadAdapters` takes them back.
   */
  toSafetensors(): Uint8Array<ArrayBuffer> {
    return encodeAdapter({ config: this.config, state: this.stateDict() }, { modelLayers: this.available });
  }

  /**
   * Writes the adapters; see {@link writeAdapter} for the formats.
   *
   * @param beside - What else is written: parts for text encoders that were trained with them.
   * @throws {FormatError} If the file cannot be written; in a browser, which has none: take {@link toSafetensors} there.
   */
  saveAdapters(path: string, { textEncoders }: Pick<AdapterData, "textEncoders"> = {}): Promise<void> {
    const data = { config: this.config, state: this.stateDict(), textEncoders };
    return writeAdapter(path, data, { modelLayers: this.available });
  }

  /**
   * Replaces the adapters, their configuration and the adapted layers by a file's, of whatever kind they are, as fera or
   * other programs write it.
   *
   * Where the file has no configuration, what its shapes do not tell (alpha, temperature, bands, …) is as this model
   * was made with.
   *
   * @param file - A path, or the bytes of a `.safetensors` or `.pt` file.
   * @returns The adapter as read: its parts for text encoders, which this model has none of, and its notes.
   * @throws {FormatError} If the file is damaged or for another model; nothing is changed then.
   */
  async loadAdapters(file: string | Uint8Array): Promise<LoadedAdapter> {
    const loaded = await readAdapter(file, this.givenConfig);
    this.useAdapter(loaded, typeof file === "string" ? file : ADAPTER_DATA);
    return loaded;
  }

  /**
   * Replaces the adapters, their configuration and the adapted layers by an adapter as read.
   *
   * @param source - Names it in messages.
   * @throws {FormatError} If it is for another model; nothing is changed then.
   */
  useAdapter(loaded: Pick<LoadedAdapter, "config" | "state" | "resolve">, source = "useAdapter"): void {
    const { config, state } = loaded.resolve?.(this.available) ?? loaded;
    const bare = createAdapter(config, this.available);
    this.install(bare.withLayersOf(state, source), state, source);
  }

  /** Frees what was compiled; it is compiled again when needed. */
  release(): Promise<void> {
    return this.compiled.release();
  }

  /** Frees what was compiled, for good. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Runs a graph over those of the parameters that it takes, built on first use; stale graphs are freed. */
  protected runGraph(
    key: string,
    build: (graph: Graph, parameters: Map<string, Value>) => void,
    feeds: Record<string, Tensor>,
    takes: (name: string) => boolean = () => true,
  ): Promise<Record<string, Tensor>> {
    // Once others may change values, graphs take them at every run; before, they are part of the graph and sent once.
    const { isShared } = this;
    const taken = new Map([...this.values].filter(([name]) => takes(name)));
    const declare = (graph: Graph) =>
      new Map(
        [...taken].map(([name, value]) => [
          name,
          isShared ? graph.input(name, "float32", value.shape) : graph.constant(value),
        ]),
      );
    const recipe = {
      build: (graph: Graph) => build(graph, declare(graph)),
      builtFrom: [this.model.weights, this.current.parameters, isShared],
    };
    return this.compiled.run(key, recipe, { ...feeds, ...(isShared && Object.fromEntries(taken)) });
  }

  private buildPrediction(graph: Graph, parameters: Map<string, Value>, shape: DenoiserShape): void {
    const { model } = this;
    const scale = graph.input("adapterScale", "float32", []);
    const inputs = model.declareInputs(graph, shape);
    const attached = this.adapter.attach(graph, parameters, { ...inputs, scale });
    graph.output("output", model.build(model.frozenScope(graph, attached.layers), inputs));
    for (const [name, value] of Object.entries(attached.reports)) graph.output(name, value);
  }

  private get values(): ReadonlyMap<string, Tensor<"float32">> {
    this.current.residence.syncToHost();
    return this.current.parameters;
  }

  private install(adapter: Adapter, state: ReadonlyMap<string, Tensor<"float32">>, source: string): void {
    checkLayers(adapter.layers, this.available, source);
    const { current } = this;
    const fits =
      JSON.stringify(adapter.config) === JSON.stringify(current.adapter.config) && sameShapes(adapter, current.adapter);
    if (fits && this.isShared) {
      current.residence.syncToHost();
      // In place, so that compiled graphs, training steps and optimizers go on.
      for (const [name, { data }] of current.adapter.fromStateDict(state)) current.parameters.get(name)!.data.set(data);
      return;
    }
    this.current = { adapter, parameters: adapter.fromStateDict(state), residence: new DeviceResident() };
  }
}

function sameShapes(a: Adapter, b: Adapter): boolean {
  const shapes = ({ shapes }: Adapter): string =>
    [...shapes]
      .map(([name, shape]) => `${name} ${shape}`)
      .sort()
      .join("\n");
  return shapes(a) === shapes(b);
}

/** The trained tensors that begin as something of a model's weights; undefined where a kind has none. */
export async function fromFrozenWeights(
  adapter: Adapter,
  model: Pick<Denoiser, "weights" | "runtime">,
): Promise<Map<string, Tensor<"float32">> | undefined> {
  if (!adapter.fromWeights) return undefined;
  const graph = new Graph();
  const values = adapter.fromWeights(({ path }) => {
    const key = `${path}.weight`;
    return model.weights.parameter(graph, key, model.weights.weights.get(key)?.shape ?? []);
  });
  for (const [name, value] of values) graph.output(name, value);
  const compiled = await compile(graph, model.runtime);
  const result = await compiled.run({}).finally(() => compiled.release());
  return new Map(Object.entries(result) as [string, Tensor<"float32">][]);
}
