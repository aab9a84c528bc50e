// The soft frequency router: band energies to one gate per expert.

import { ConfigError, ShapeError } from "../../errors.js";
import * as ops from "../../graph/index.js";
import { sameShape, type Value } from "../../graph/index.js";
import { draw } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { CompiledGraphs } from "../../runtime/index.js";
import { Generator } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import { FeRAConfig } from "./fera-config.js";

const HIDDEN = 64;

/** The router's parameters by name, and their shapes. */
export function routerShapes(numBands: number, numExperts: number): Map<string, readonly number[]> {
  return new Map([
    ["net.0.weight", [HIDDEN, numBands]],
    ["net.0.bias", [HIDDEN]],
    ["net.2.weight", [numExperts, HIDDEN]],
    ["net.2.bias", [numExperts]],
  ]);
}

/** Draws the parameters as torch's `nn.Linear` does: uniform in ±1/√fan_in, biases too. */
export function initialRouter(
  numBands: number,
  numExperts: number,
  generator: Generator,
): Map<string, Tensor<"float32">> {
  const fanIn = (name: string): number => (name.startsWith("net.0") ? numBands : HIDDEN);
  const fresh = [...routerShapes(numBands, numExperts)].map(([name, shape]) => {
    const bound = 1 / Math.sqrt(fanIn(name));
    return [name, draw(shape, { kind: "uniform", bound }, generator)] as const;
  });
  return new Map(fresh);
}

/**
 * w = softmax((W2 relu(W1 e + b1) + b2) / tau).
 *
 * @param energies - `[B, K]`.
 * @param parameters - Under the names of {@link routerShapes}.
 * @returns `[B, E]`, each row summing to 1.
 */
export function route(energies: Value, parameters: ReadonlyMap<string, Value>, tau: number): Value {
  const parameter = (name: string): Value => parameters.get(name)!;
  const hidden = ops.relu(ops.linear(energies, parameter("net.0.weight"), parameter("net.0.bias")));
  return ops.softmax(ops.div(ops.linear(hidden, parameter("net.2.weight"), parameter("net.2.bias")), tau));
}

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
      : initialRouter(this.config.numBands, this.config.numExperts, new Generator(seed));
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
    const graph = await this.compiled.get(`${energies.shape[0]}`, (graph) => {
      const values = new Map<string, Value>();
      for (const [name, { shape }] of this.parameters) values.set(name, graph.input(name, "float32", shape));
      graph.output("weights", route(graph.input("energies", "float32", energies.shape), values, routerTau));
    });
    return (await graph.run({ energies, ...Object.fromEntries(this.parameters) })).weights as Tensor<"float32">;
  }

  /** Frees what was compiled. */
  release(): Promise<void> {
    return this.compiled.release();
  }
}

function checkedState(state: ReadonlyMap<string, Tensor>, config: FeRAConfig): Map<string, Tensor<"float32">> {
  const checked = new Map<string, Tensor<"float32">>();
  for (const [name, shape] of routerShapes(config.numBands, config.numExperts)) {
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
