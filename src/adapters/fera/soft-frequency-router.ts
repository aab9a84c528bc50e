// FeRA's router by itself: band energies to one gate per expert, without a model.

import { ConfigError, ShapeError } from "../../errors.js";
import { Graph, sameShape, type Value } from "../../graph/index.js";
import { CompiledGraphs, compile, type RuntimeOptions } from "../../runtime/index.js";
import { Generator } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { AdapterData } from "../loaded-adapter.js";
import { FeRAConfig } from "./fera-config.js";
import { layoutOfState, ROUTER } from "./fera-state.js";
import { createRouter, initialNetwork, layerGates, networkShapes, softmaxNetwork } from "./routers/index.js";

/** Options of {@link SoftFrequencyRouter}, named and defaulted as in {@link FeRAConfig} except for `tau`. */
export interface SoftFrequencyRouterOptions {
  numBands?: number;
  numExperts?: number;
  /** Temperature. Default 0.7. */
  tau?: number;
  /** `net.0.weight [64, K]`, `net.0.bias [64]`, `net.2.weight [E, 64]`, `net.2.bias [E]`; fresh ones by default. */
  state?: ReadonlyMap<string, Tensor>;
  /** Seeds fresh parameters. Default 0. */
  seed?: number;
}

/** A router by itself; compiled once per batch size. */
export class SoftFrequencyRouter {
  readonly parameters: ReadonlyMap<string, Tensor<"float32">>;
  private readonly config: FeRAConfig;
  private readonly compiled: CompiledGraphs;

  /**
   * @throws {ConfigError} If an option is invalid or a parameter missing.
   * @throws {ShapeError} If a parameter has another shape.
   */
  constructor(options: SoftFrequencyRouterOptions = {}, runtime: RuntimeOptions = {}) {
    const { numBands, numExperts, tau, state, seed = 0 } = options;
    this.config = new FeRAConfig({ numBands, numExperts, routerTau: tau });
    this.parameters = state
      ? checkedState(state, this.config)
      : initialNetwork(this.config.numBands, this.config.numExperts, new Generator(seed));
    this.compiled = new CompiledGraphs(runtime);
  }

  /**
   * @param energies - float32 `[B, K]`.
   * @returns Gates `[B, E]`.
   */
  async compute(energies: Tensor): Promise<Tensor<"float32">> {
    const { numBands, routerTau } = this.config;
    if (energies.shape.length !== 2 || energies.shape[1] !== numBands) {
      throw new ShapeError(
        `SoftFrequencyRouter: energies must be [B, ${numBands}]; got [${energies.shape.join(",")}].`,
      );
    }
    const build = (graph: Graph) => {
      const values = new Map<string, Value>();
      for (const [name, { shape }] of this.parameters) values.set(name, graph.input(name, "float32", shape));
      graph.output("gates", softmaxNetwork(graph.input("energies", "float32", energies.shape), values, routerTau));
    };
    const feeds = { energies, ...Object.fromEntries(this.parameters) };
    return (await this.compiled.run(`${energies.shape[0]}`, { build }, feeds)).gates as Tensor<"float32">;
  }

  /** Frees what was compiled. */
  release(): Promise<void> {
    return this.compiled.release();
  }

  /** The same, at the end of use. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}

/**
 * The gates of an adapter, by whatever router it has, without its model: the mean over the blocks of its layers where these have gates of
 * their own. R rows, K bands, E experts.
 *
 * @param inputs.energies - float32 `[R, K]`.
 * @param inputs.timesteps - float32 `[R]`, for the router that follows them.
 * @returns `[R, E]`.
 * @throws {ConfigError} If timesteps are missing that the router needs.
 */
export async function adapterGates(
  { config, state }: AdapterData<FeRAConfig>,
  inputs: { energies: Tensor<"float32">; timesteps?: Tensor<"float32"> },
  runtime: RuntimeOptions = {},
): Promise<Tensor<"float32">> {
  const router = createRouter(config);
  const graph = new Graph();
  const parameters = new Map<string, Value>();
  for (const name of router.shapes.keys()) parameters.set(name, graph.constant(state.get(ROUTER + name)!));
  const timesteps = inputs.timesteps && graph.constant(inputs.timesteps);
  const given = { energies: graph.constant(inputs.energies), timesteps };
  const paths = router.blockGates ? layoutOfState(state, "adapterGates", config).layers.map(({ path }) => path) : [];
  graph.output("gates", layerGates(router, given, parameters, paths).mean);
  const compiled = await compile(graph, runtime);
  return (await compiled.run({}).finally(() => compiled.release())).gates as Tensor<"float32">;
}

function checkedState(state: ReadonlyMap<string, Tensor>, config: FeRAConfig): Map<string, Tensor<"float32">> {
  const checked = new Map<string, Tensor<"float32">>();
  for (const [name, shape] of networkShapes(config.numBands, config.numExperts)) {
    const given = state.get(name);
    const where = `SoftFrequencyRouter: state "${name}"`;
    if (!given) throw new ConfigError(`${where} is missing; it must be float32[${shape.join(",")}].`);
    if (given.dtype !== "float32" || !sameShape(given.shape, shape)) {
      throw new ShapeError(
        `${where} must be float32[${shape.join(",")}] for ${config.numBands} bands and ${config.numExperts} experts; ` +
          `got ${given.dtype}[${given.shape.join(",")}].`,
      );
    }
    checked.set(name, given as Tensor<"float32">);
  }
  return checked;
}
