// Several adapters on one model at once, applied one after the other, each with a scale of its own.

import type { Denoiser, DenoiserInputs } from "../diffusion/index.js";
import type { Graph, Value } from "../graph/index.js";
import type { GraphAdapters, LayerAdapters } from "../nn/index.js";
import { CompiledGraphs } from "../runtime/index.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { AttachableAdapter, AttachInputs } from "./adapter.js";
import type { AdapterPart, LoadedAdapter } from "./adapter-format.js";
import { AdapterModel } from "./adapter-model.js";
import { createAdapter } from "./create-adapter.js";
import { checkLayers, type TargetLayer } from "./target-layers.js";

/** One adapter of a stack: that of a model around the same denoiser, or one as read from a file. */
export interface StackedAdapter {
  name: string;
  on: AdapterModel | AttachableAdapter;
  /** Factor on what it changes. */
  scale: number;
}

/** Energies `[B, K]` and gates `[B, E]` of a routed adapter. B batch. */
export interface RoutedGates {
  energies: Tensor<"float32">;
  gates: Tensor<"float32">;
}

/** A prediction, and how the routed adapters among those that made it were mixed, by name. */
export interface StackPrediction {
  /** `[B, C, H, W]`. */
  output: Tensor<"float32">;
  routing: ReadonlyMap<string, RoutedGates>;
}

/**
 * An adapter as read on the layers of a model.
 *
 * @param layers - All layers of the model that adapters can change.
 * @param source - Names it in messages.
 * @throws {FormatError} If it is for another model.
 */
export function attachableAdapter(
  loaded: Pick<AdapterPart, "config" | "state"> & Pick<LoadedAdapter, "resolve">,
  layers: readonly TargetLayer[],
  source: string,
): AttachableAdapter {
  const { config, state } = loaded.resolve?.(layers) ?? loaded;
  const adapter = createAdapter(config, layers).withLayersOf(state, source);
  checkLayers(adapter.layers, layers, source);
  return { adapter, parameters: adapter.fromStateDict(state), isShared: false };
}

/** Adapters for graphs without latents: a text encoder's. */
export function graphAdapters(adapters: readonly (AttachableAdapter & { scale: number })[]): GraphAdapters {
  return {
    identity: adapters.map(({ parameters }) => parameters),
    attach: (graph) => attachAll(graph, adapters, {}).layers,
    feeds: feedsOf(
      adapters,
      adapters.map(({ scale }) => scale),
    ),
  };
}

/** A frozen denoiser under any number of adapters; which ones is said at every prediction. */
export class AdapterStack {
  private readonly compiled: CompiledGraphs;

  constructor(private readonly model: Denoiser) {
    this.compiled = new CompiledGraphs(model.runtime);
  }

  /**
   * y = W x + Σ_i scale_i Δ_i(x) at every layer; adapters whose change depends on y get it with the changes so far.
   *
   * The adapter of an {@link AdapterModel} alone runs in that model's own graph.
   *
   * @throws {ShapeError} If an input does not fit the model.
   */
  async predict(inputs: DenoiserInputs, adapters: readonly StackedAdapter[]): Promise<StackPrediction> {
    const [first] = adapters;
    if (!first) return { output: await this.model.predict(inputs), routing: new Map() };
    if (adapters.length === 1 && first.on instanceof AdapterModel) {
      const { output, energies, gates } = await first.on.predictWithReports({ ...inputs, adapterScale: first.scale });
      return { output, routing: new Map(energies && gates ? [[first.name, { energies, gates }]] : []) };
    }
    const parts = adapters.map(({ on }) => (on instanceof AdapterModel ? on.attachable : on));
    const scales = adapters.map(({ scale }) => scale);
    const results = await this.run(inputs, parts, feedsOf(parts, scales));
    const routing = new Map<string, RoutedGates>();
    for (const [i, { name }] of adapters.entries()) {
      const [energies, gates] = [results[reportName(i, "energies")], results[reportName(i, "gates")]];
      if (energies && gates) routing.set(name, { energies, gates });
    }
    return { output: results.output!, routing };
  }

  /** Frees what was compiled; it is compiled again when needed. */
  release(): Promise<void> {
    return this.compiled.release();
  }

  private async run(inputs: DenoiserInputs, parts: readonly AttachableAdapter[], feeds: Record<string, Tensor>) {
    const { model } = this;
    const shape = model.shapeOf(inputs);
    const build = (graph: Graph) => {
      const values = model.declareInputs(graph, shape);
      const { layers, reports } = attachAll(graph, parts, values);
      graph.output("output", model.build(model.frozenScope(graph, layers), values));
      for (const [name, value] of reports) graph.output(name, value);
    };
    const builtFrom = [model.weights, ...parts.flatMap(({ parameters, isShared }) => [parameters, isShared])];
    const recipe = { build, builtFrom };
    const results = await this.compiled.run(JSON.stringify(shape), recipe, { ...model.feedsOf(inputs), ...feeds });
    return results as Record<string, Tensor<"float32">>;
  }
}

const scaleName = (index: number): string => `adapters.${index}.scale`;
const reportName = (index: number, name: string): string => `adapters.${index}.${name}`;
const parameterName = (index: number, name: string): string => `adapters.${index}/${name}`;

function attachAll(
  graph: Graph,
  parts: readonly AttachableAdapter[],
  inputs: AttachInputs,
): { layers: LayerAdapters; reports: ReadonlyMap<string, Value> } {
  const reports = new Map<string, Value>();
  const chain = parts.map(({ adapter, parameters, isShared }, i) => {
    const values = new Map(
      [...parameters].map(([name, value]) => [
        name,
        isShared ? graph.input(parameterName(i, name), "float32", value.shape) : graph.constant(value),
      ]),
    );
    const scale = graph.input(scaleName(i), "float32", []);
    const attached = adapter.attach(graph, values, { ...inputs, scale });
    for (const [name, value] of Object.entries(attached.reports)) reports.set(reportName(i, name), value);
    return attached.layers;
  });
  return { layers: { apply: (layer, x, y) => chain.reduce((sum, each) => each.apply(layer, x, sum), y) }, reports };
}

function feedsOf(parts: readonly AttachableAdapter[], scales: readonly number[]): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const [i, { parameters, isShared }] of parts.entries()) {
    feeds[scaleName(i)] = tensor(Float32Array.of(scales[i]!), []);
    if (isShared) for (const [name, value] of parameters) feeds[parameterName(i, name)] = value;
  }
  return feeds;
}
