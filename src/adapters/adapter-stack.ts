// Several adapters on one model at once, applied one after the other, each with a scale of its own.

import type { Denoiser, DenoiserInputs } from "../diffusion/index.js";
import { ConfigError, ShapeError } from "../errors.js";
import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import type { GraphAdapters, LayerAdapters } from "../nn/index.js";
import { CompiledGraphs } from "../runtime/index.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { Adapter, AttachableAdapter, AttachInputs } from "./adapter.js";
import type { AdapterPart, LoadedAdapter } from "./adapter-format.js";
import { AdapterModel } from "./adapter-model.js";
import { createAdapter } from "./create-adapter.js";
import { checkLayers, type TargetLayer } from "./target-layers.js";

/** One adapter of a stack: that of a model around the same denoiser, or one as read from a file. */
export interface StackedAdapter {
  name: string;
  on: AdapterModel | AttachableAdapter;
  /** Factor on what it changes: one for all rows of a batch, or one for each. */
  scale: number | readonly number[];
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
  return { adapter, parameters: adapter.fromStateDict(state) };
}

/** Adapters for graphs without latents: a text encoder's. */
export function graphAdapters(adapters: readonly (AttachableAdapter & { scale: number })[]): GraphAdapters {
  return {
    identity: adapters.map(signatureOf),
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
   * Where scales are given for each row, every row of the batch is changed by the adapters that it has, and exactly as
   * without the others. Values are fed at every run: adapters of the same layers, shapes and settings take each other's
   * place without anything being compiled. The adapter of an {@link AdapterModel} alone runs in that model's own graph.
   *
   * @throws {ShapeError} If an input does not fit the model, or there is not one scale for each row.
   * @throws {ConfigError} If an adapter whose change is not linear in its scale has several scales beside 0 in one batch.
   */
  async predict(inputs: DenoiserInputs, adapters: readonly StackedAdapter[]): Promise<StackPrediction> {
    const [first] = adapters;
    if (!first) return { output: await this.model.predict(inputs), routing: new Map() };
    if (adapters.length === 1 && first.on instanceof AdapterModel && typeof first.scale === "number") {
      const { output, energies, gates } = await first.on.predictWithReports({ ...inputs, adapterScale: first.scale });
      return { output, routing: new Map(energies && gates ? [[first.name, { energies, gates }]] : []) };
    }
    const parts = adapters.map(({ on }) => (on instanceof AdapterModel ? on.attachable : on));
    const isMixed = adapters.some(({ scale }) => typeof scale !== "number");
    const rows = inputs.latents.shape[0]!;
    const mixture = adapters.map(({ name, scale }, i) => mixed(name, scale, rows, parts[i]!.adapter));
    const feeds = feedsOf(
      parts,
      mixture.map(({ scale }) => scale),
    );
    if (isMixed) for (const [i, { shares }] of mixture.entries()) feeds[sharesName(i)] = tensor(shares, [rows]);
    const results = await this.run(inputs, parts, feeds, isMixed);
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

  private async run(
    inputs: DenoiserInputs,
    parts: readonly AttachableAdapter[],
    feeds: Record<string, Tensor>,
    isMixed: boolean,
  ) {
    const { model } = this;
    const shape = model.shapeOf(inputs);
    const build = (graph: Graph) => {
      const values = model.declareInputs(graph, shape);
      const { layers, reports } = attachAll(graph, parts, values, isMixed ? shape.batchSize : undefined);
      graph.output("output", model.build(model.frozenScope(graph, layers), values));
      for (const [name, value] of reports) graph.output(name, value);
    };
    const recipe = { build, builtFrom: [model.weights, ...parts.map(signatureOf)] };
    const key = `${JSON.stringify(shape)}${isMixed ? " mixed" : ""}`;
    const results = await this.compiled.run(key, recipe, { ...model.feedsOf(inputs), ...feeds });
    return results as Record<string, Tensor<"float32">>;
  }
}

const scaleName = (index: number): string => `adapters.${index}.scale`;
const sharesName = (index: number): string => `adapters.${index}.shares`;
const reportName = (index: number, name: string): string => `adapters.${index}.${name}`;
const parameterName = (index: number, name: string): string => `adapters.${index}/${name}`;

/** Options that do not tell what a graph computes once layers and shapes are known. */
const NOT_COMPUTED = ["target_modules", "exclude_modules", "matching", "dropout", "lora_dropout", "fecl_weight"];
const SIGNATURES = new WeakMap<Adapter, string>();

/** Equal where graphs are equal: of the same kind, settings and shapes. */
function signatureOf({ adapter }: AttachableAdapter): string {
  const known = SIGNATURES.get(adapter);
  if (known !== undefined) return known;
  const { config, shapes } = adapter;
  const settings = Object.entries(config.toJSON()).filter(([name]) => !NOT_COMPUTED.includes(name));
  const signature = JSON.stringify([config.adapterType, settings, [...shapes]]);
  SIGNATURES.set(adapter, signature);
  return signature;
}

/** A scale of an adapter, and each row's share of it. */
function mixed(
  name: string,
  scale: number | readonly number[],
  rows: number,
  adapter: Adapter,
): { scale: number; shares: Float32Array } {
  if (typeof scale === "number") return { scale, shares: new Float32Array(rows).fill(1) };
  if (scale.length !== rows) {
    throw new ShapeError(`adapters: "${name}" must have a scale for each of ${rows} rows; got ${scale.length}.`);
  }
  const largest = scale.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
  const shares = Float32Array.from(scale, (value) => (largest === 0 ? 0 : value / largest));
  if (!adapter.isLinearInScale && shares.some((share) => share !== 0 && share !== 1)) {
    throw new ConfigError(
      `adapters: "${name}" is of the kind ${adapter.config.adapterType}, whose change is not linear in its scale; ` +
        `in one batch it can have one scale beside 0; got ${[...new Set(scale)].join(", ")}.`,
    );
  }
  return { scale: largest, shares };
}

/** @param rows - Of a batch whose rows have shares of their own. */
function attachAll(
  graph: Graph,
  parts: readonly AttachableAdapter[],
  inputs: AttachInputs,
  rows?: number,
): { layers: LayerAdapters; reports: ReadonlyMap<string, Value> } {
  const reports = new Map<string, Value>();
  const chain = parts.map(({ adapter, parameters }, i): LayerAdapters => {
    const values = new Map(
      [...parameters].map(([name, { shape }]) => [name, graph.input(parameterName(i, name), "float32", shape)]),
    );
    const scale = graph.input(scaleName(i), "float32", []);
    const { layers, reports: own } = adapter.attach(graph, values, { ...inputs, scale });
    for (const [name, value] of Object.entries(own)) reports.set(reportName(i, name), value);
    if (rows === undefined) return layers;
    const shares = graph.input(sharesName(i), "float32", [rows]);
    return { apply: (layer, x, y) => shared(layers.apply(layer, x, y), y, shares) };
  });
  return { layers: { apply: (layer, x, y) => chain.reduce((sum, each) => each.apply(layer, x, sum), y) }, reports };
}

/** y + share · (changed − y), which is y to the bit where the share is 0. */
function shared(changed: Value, y: Value, shares: Value): Value {
  if (changed === y) return y;
  if (y.shape[0] !== shares.shape[0]) {
    throw new ShapeError(`adapters: a layer must have the batch's ${shares.shape[0]} rows to mix adapters; got ${y}.`);
  }
  const column = ops.reshape(shares, [shares.shape[0]!, ...y.shape.slice(1).map(() => 1)]);
  return ops.add(y, ops.mul(ops.sub(changed, y), column));
}

function feedsOf(parts: readonly AttachableAdapter[], scales: readonly number[]): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const [i, { parameters }] of parts.entries()) {
    feeds[scaleName(i)] = tensor(Float32Array.of(scales[i]!), []);
    for (const [name, value] of parameters) feeds[parameterName(i, name)] = value;
  }
  return feeds;
}
