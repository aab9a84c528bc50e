// FeRAModel: a frozen UNet with routed experts on some of its linear layers.

import { ConfigError, ShapeError } from "../../errors.js";
import {
  UNet2DConditionModel,
  type UNetInputs,
  unetFeeds,
  unetShapeOf,
} from "../../models/unet-2d-condition/unet-2d-condition.js";
import { draw } from "../../nn/index.js";
import { CompiledGraphs } from "../../runtime/index.js";
import { Generator } from "../../tensor/random.js";
import { flatValues, type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { Loan } from "../../training/loan.js";
import { buildAdaptedPass, buildRoute } from "../../training/step-graph.js";
import { TrainStep } from "../../training/train-step.js";
import type { TrainStepOptions } from "../../training/train-step-options.js";
import { ADAPTER_DATA, type LoadedAdapter, readAdapter, writeAdapter } from "../adapter-format.js";
import {
  type AdapterLayout,
  checkLayers,
  floatState,
  layoutOfState,
  ROUTER,
  stackedShapes,
  stackState,
  unstackState,
} from "./adapter-state.js";
import { adaptedLayers, type LinearLayer, linearLayers } from "./experts.js";
import { FeRAConfig, type FeRAOptions } from "./fera-config.js";
import { initialRouter } from "./router.js";

/** Inputs of {@link FeRAModel.predict}. */
export interface FeRAInputs extends UNetInputs {
  /** False gives the frozen model's prediction. Default true. */
  adapters?: boolean;
  /** Factor on all experts. Default 1. */
  adapterScale?: number;
}

/** What the latents of a batch route to. B batch, K bands, E experts. */
export interface Routing {
  /** `[B, K]`, low to high. */
  energies: Tensor<"float32">;
  /** Gates `[B, E]`. */
  weights: Tensor<"float32">;
}

/**
 * A UNet with experts whose gates follow the latent's frequency energies.
 *
 * @see arXiv:2511.17979
 */
export class FeRAModel {
  private current: {
    config: FeRAConfig;
    layout: AdapterLayout;
    /** Router, and `PATH.down [E·r, in]` and `PATH.up [out, E·r]` per layer; trainers change the values in place. */
    parameters: Map<string, Tensor<"float32">>;
    /** Tells whether a training step has newer values on a device. */
    loan: Loan;
  };
  private readonly available: readonly LinearLayer[];
  private readonly compiled: CompiledGraphs;
  /** What the compiled graphs were built from. */
  private compiledFor: readonly [weights: unknown, parameters: unknown] = [undefined, undefined];
  private readonly givenConfig: FeRAConfig;

  /**
   * Fresh adapters: `lora_down` uniform in ±1/√in, `lora_up` 0 (so that nothing changes yet), the router as torch's.
   *
   * @param options - Defaults as in {@link FeRAOptions}.
   * @param random.seed - Default 0.
   * @throws {ConfigError} If the model is none, the configuration is invalid, its targets name no layer of the model, or
   *   its rank is larger than any of these layers can have.
   */
  constructor(
    readonly model: UNet2DConditionModel,
    options: FeRAConfig | FeRAOptions = {},
    { seed = 0 }: { seed?: number } = {},
  ) {
    const config = options instanceof FeRAConfig ? options : new FeRAConfig(options);
    if (!(model instanceof UNet2DConditionModel)) {
      const came = (model as object | undefined)?.constructor.name ?? String(model);
      throw new ConfigError(`FeRAModel: the model must be a UNet2DConditionModel, such as pipe.unet; got ${came}.`);
    }
    this.givenConfig = config;
    this.available = linearLayers(model);
    const { rank, numExperts, numBands } = config;
    const layers = adaptedLayers(this.available, config);
    const largest = Math.max(...layers.map(({ inFeatures, outFeatures }) => Math.min(inFeatures, outFeatures)));
    if (rank > largest) {
      throw new ConfigError(
        `FeRAModel: rank must be ${largest} or less, the largest that a matrix of these layers has; got ${rank}.`,
      );
    }
    const layout = { layers, rank, numExperts, numBands };
    this.current = { config, layout, parameters: freshParameters(layout, new Generator(seed)), loan: new Loan() };
    this.compiled = new CompiledGraphs(model.runtime);
  }

  get config(): FeRAConfig {
    return this.current.config;
  }

  /** The adapted layers. */
  get layers(): readonly LinearLayer[] {
    return this.current.layout.layers;
  }

  /**
   * The trained tensors, experts stacked: `router.net.*`, `PATH.down [E·r, in]`, `PATH.up [out, E·r]`.
   *
   * Current when asked for: a training step whose state is on the device brings it back first.
   */
  get parameters(): ReadonlyMap<string, Tensor<"float32">> {
    this.current.loan.recall();
    return this.current.parameters;
  }

  /** Number of trainable values, the router's included. */
  get parameterCount(): number {
    let count = 0;
    for (const { size } of this.current.parameters.values()) count += size;
    return count;
  }

  /** Copies of all trained tensors under the reference's names. */
  stateDict(): Map<string, Tensor<"float32">> {
    return unstackState(flatValues(this.parameters), this.current.layout);
  }

  /**
   * Takes the tensors of a state dict; the layers that it names become the adapted ones.
   *
   * @throws {FormatError} If tensors are missing or do not fit each other or the model.
   * @throws {ShapeError} If rank, experts or bands are not the configuration's. Nothing is changed in either case.
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    const source = "loadStateDict";
    const layout = layoutOfState(state, source);
    for (const key of ["rank", "numExperts", "numBands"] as const) {
      if (layout[key] !== this.config[key]) {
        throw new ShapeError(`${source}: the state has ${key}=${layout[key]}, the configuration ${this.config[key]}.`);
      }
    }
    this.install(this.config, layout, floatState(state, source), source);
  }

  /** Energies and gates of latents `[B, C, H, W]`. */
  async route(latents: Tensor): Promise<Routing> {
    const { config, layout } = this.current;
    const { parameters } = this;
    await this.forgetStale();
    const graph = await this.compiled.get(`route ${latents.shape.join(",")}`, (graph) => {
      const { energies, weights } = buildRoute(graph.input("latents", "float32", latents.shape), layout, config);
      graph.output("energies", energies);
      graph.output("weights", weights);
    });
    const router = Object.fromEntries([...parameters].filter(([name]) => name.startsWith(ROUTER)));
    const { energies, weights } = (await graph.run({ latents, ...router })) as Record<string, Tensor<"float32">>;
    return { energies: energies!, weights: weights! };
  }

  /**
   * The adapted prediction, without dropout.
   *
   * @returns `[B, out_channels, H, W]`.
   * @throws {ShapeError} If an input does not fit the model.
   */
  async predict(inputs: FeRAInputs): Promise<Tensor<"float32">> {
    if (inputs.adapters === false) return this.model.predict(inputs);
    return (await this.predictWithRoute(inputs)).output;
  }

  /** As {@link predict}, with the routing that made it. */
  async predictWithRoute(inputs: FeRAInputs): Promise<Routing & { output: Tensor<"float32"> }> {
    const { adapters = true, adapterScale = 1 } = inputs;
    if (!Number.isFinite(adapterScale)) throw new ConfigError(`adapterScale: must be finite; got ${adapterScale}.`);
    if (!adapters) return { ...(await this.route(inputs.latents)), output: await this.model.predict(inputs) };
    const { config, layout } = this.current;
    const { parameters } = this;
    const shape = unetShapeOf(inputs, this.model.config);
    await this.forgetStale();
    const graph = await this.compiled.get(JSON.stringify(shape), (graph) => {
      const scale = graph.input("adapterScale", "float32", []);
      const pass = buildAdaptedPass(graph, this.model, layout, config, shape, { scale });
      graph.output("output", pass.output);
      graph.output("energies", pass.energies);
      graph.output("weights", pass.weights);
    });
    const scale = tensor(Float32Array.of(adapterScale), []);
    const feeds = { ...unetFeeds(inputs), ...Object.fromEntries(parameters), adapterScale: scale };
    const { output, energies, weights } = (await graph.run(feeds)) as Record<string, Tensor<"float32">>;
    return { output: output!, energies: energies!, weights: weights! };
  }

  /**
   * Compiles one training step: forward, base pass, both losses and all gradients in one graph.
   *
   * The result also serves a trainer (`parameters`, `compute`, and `optimizerSteps` where the state is on the device).
   *
   * @throws {ConfigError} If an option is invalid.
   */
  compileTrainStep(options: TrainStepOptions): Promise<TrainStep> {
    const { config, layout, parameters, loan } = this.current;
    const { weights } = this.model;
    const isCurrent = () => this.current.parameters === parameters && this.model.weights === weights;
    const adapter = { parameters, loan, layout, isCurrent };
    return TrainStep.compile(this.model, adapter, config, options);
  }

  /** Writes the adapters; see {@link writeAdapter} for the three formats. */
  saveAdapters(path: string): Promise<void> {
    return writeAdapter(path, { config: this.config, state: this.stateDict() });
  }

  /**
   * Replaces the adapters, their configuration and the adapted layers by a file's.
   *
   * Where the file has no configuration, what its shapes do not tell (alpha, temperature, bands, …) is as this model
   * was made with.
   *
   * @param file - A path, or the bytes of a `.safetensors` or `.pt` file.
   * @throws {FormatError} If the file is damaged or for another model; nothing is changed then.
   */
  async loadAdapters(file: string | Uint8Array): Promise<void> {
    this.useAdapter(await readAdapter(file, this.givenConfig), typeof file === "string" ? file : ADAPTER_DATA);
  }

  /**
   * Replaces the adapters, their configuration and the adapted layers by an adapter as read.
   *
   * @param source - Names it in messages.
   * @throws {FormatError} If it is for another model; nothing is changed then.
   */
  useAdapter({ config, layout, state }: LoadedAdapter, source = "useAdapter"): void {
    this.install(config, layout, state, source);
  }

  /** Frees what was compiled; it is made again when needed. */
  release(): Promise<void> {
    return this.compiled.release();
  }

  private install(
    config: FeRAConfig,
    layout: AdapterLayout,
    state: ReadonlyMap<string, Tensor<"float32">>,
    source: string,
  ): void {
    checkLayers(layout.layers, this.available, source);
    const { current } = this;
    const fits = JSON.stringify(config) === JSON.stringify(current.config) && sameLayers(layout, current.layout);
    if (fits) {
      current.loan.recall();
      // In place, so that compiled graphs, training steps and optimizers go on.
      for (const [name, { data }] of stackState(state, current.layout)) current.parameters.get(name)!.data.set(data);
      return;
    }
    this.current = { config, layout, parameters: stackState(state, layout), loan: new Loan() };
  }

  /** Frees graphs that were built for adapters or base weights that have been replaced since. */
  private async forgetStale(): Promise<void> {
    const { weights } = this.model;
    const { parameters } = this.current;
    if (this.compiledFor[0] === weights && this.compiledFor[1] === parameters) return;
    this.compiledFor = [weights, parameters];
    await this.compiled.release();
  }
}

function freshParameters(layout: AdapterLayout, generator: Generator): Map<string, Tensor<"float32">> {
  const router = initialRouter(layout.numBands, layout.numExperts, generator);
  const parameters = new Map<string, Tensor<"float32">>();
  for (const [name, shape] of stackedShapes(layout)) {
    if (name.startsWith(ROUTER)) parameters.set(name, router.get(name.slice(ROUTER.length))!);
    else if (name.endsWith(".up")) parameters.set(name, zeros(shape));
    else parameters.set(name, draw(shape, { kind: "uniform", bound: 1 / Math.sqrt(shape[1]!) }, generator));
  }
  return parameters;
}

function sameLayers(a: AdapterLayout, b: AdapterLayout): boolean {
  const paths = (layout: AdapterLayout): string =>
    layout.layers
      .map(({ path }) => path)
      .sort()
      .join(" ");
  return paths(a) === paths(b);
}
