// FeRA as an adapter: indicator, router and experts in a graph, the consistency loss, and the names of its tensors.

import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import type { Adapter, AttachedAdapter, AttachInputs } from "../adapter.js";
import { kaimingUniform } from "../lora/lora-adapter.js";
import { checkRank, selectLayers, type TargetLayer } from "../target-layers.js";
import { feclLoss } from "./consistency-loss.js";
import { expandGates, RoutedExperts } from "./experts.js";
import type { FeRAConfig } from "./fera-config.js";
import {
  type FeRALayout,
  layoutOf,
  layoutOfState,
  ROUTER,
  stackedShapes,
  stackState,
  unstackState,
} from "./fera-state.js";
import { bandEnergies, frequencyBands } from "./indicator.js";
import { blockOf, createRouter, layerGates } from "./routers/index.js";

const BALANCE = "balance";

/**
 * Experts whose gates follow the latent's frequency energies.
 *
 * Trained tensors: `router.net.*`, and per layer, experts stacked, `PATH.down [E·r, in]` (`[r, in]` where experts share it)
 * and `PATH.up [out, E·r]`; of a convolution `[…, in, k, k]` and `[…, 1, 1]`.
 *
 * @see arXiv:2511.17979
 */
export class FeRAAdapter implements Adapter<FeRAConfig> {
  readonly lossNames: readonly string[];
  readonly hasWholeBatchLoss: boolean;
  readonly isLinearInScale = true;
  readonly layout: FeRALayout;
  readonly shapes: ReadonlyMap<string, readonly number[]>;

  /** @param layers - The layers that get experts. */
  constructor(
    readonly config: FeRAConfig,
    layers: readonly TargetLayer[],
  ) {
    const { ownLoss } = createRouter(config);
    const balance = config.balanceWeight > 0 ? [BALANCE] : [];
    this.hasWholeBatchLoss = config.balanceWeight > 0;
    this.lossNames = ["fecl", ...balance, ...(ownLoss ? [ownLoss.name] : [])];
    this.layout = layoutOf(config, layers);
    this.shapes = stackedShapes(this.layout);
  }

  /**
   * On the layers that the configuration names.
   *
   * @param layers - Of the model.
   * @throws {ConfigError} If its targets name none, or the rank is larger than any of them can have.
   */
  static on(layers: readonly TargetLayer[], config: FeRAConfig): FeRAAdapter {
    // The reference implementation walks linear layers only.
    const open = config.matching === "name" ? layers.filter(({ kind }) => kind === "linear") : layers;
    const chosen = selectLayers(open, config);
    checkRank("FeRAModel", config.rank, chosen);
    if (createRouter(config).blockGates && chosen.every(({ path }) => blockOf(path) === undefined)) {
      throw new ConfigError(
        `router "${config.router}": needs a UNet, whose layers lie in down_blocks, mid_block and up_blocks; ` +
          `got ${chosen[0]!.path}. Take another router for this model.`,
      );
    }
    return new FeRAAdapter(config, chosen);
  }

  get layers(): readonly TargetLayer[] {
    return this.layout.layers;
  }

  /** `lora_down` uniform in ±1/√in, `lora_up` 0 (so that nothing changes yet), the router as torch's. */
  initialize(generator: Generator): Map<string, Tensor<"float32">> {
    const router = createRouter(this.config).initialize(generator);
    const parameters = new Map<string, Tensor<"float32">>();
    for (const [name, shape] of this.shapes) {
      if (name.startsWith(ROUTER)) parameters.set(name, router.get(name.slice(ROUTER.length))!);
      else if (name.endsWith(".up")) parameters.set(name, zeros(shape));
      else parameters.set(name, kaimingUniform(shape, generator));
    }
    return parameters;
  }

  /**
   * Energies and gates of latents.
   *
   * @returns `energies [B, K]` and `gates [B, E]`, the mean over the adapted layers' blocks where these have gates of their own;
   *   `gatesAt` gives those of a layer.
   */
  route(latents: Value, parameters: ReadonlyMap<string, Value>, timesteps?: Value) {
    const energies = bandEnergies(frequencyBands(latents, this.config));
    const paths = this.layers.map(({ path }) => path);
    const { mean, at } = layerGates(createRouter(this.config), { energies, timesteps }, routerOf(parameters), paths);
    return { energies, gates: mean, gatesAt: at };
  }

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter {
    const { config } = this;
    const { latents, timesteps, scale, training = false } = inputs;
    if (!latents) throw new ShapeError("FeRA: its gates follow latents; a model without latents cannot have it.");
    const { energies, gates, gatesAt } = this.route(latents, parameters, timesteps);
    const made = new Map<Value, Value>();
    const expandedAt = (path: string): Value => {
      const own = gatesAt(path);
      let expanded = made.get(own);
      if (!expanded) {
        expanded = expandGates(own, config.rank, config.alpha);
        if (scale) expanded = ops.mul(expanded, scale);
        made.set(own, expanded);
      }
      return expanded;
    };
    const experts = new RoutedExperts(parameters, expandedAt, training && config.dropout > 0);
    return {
      layers: experts,
      masks: experts.masks,
      reports: { energies, gates },
      lossTerms({ output, target, base, lossWeights, lossMask }) {
        const { feclWeight, balanceWeight } = config;
        const weighted = (loss: () => Value, weight: number) => (weight === 0 ? undefined : ops.mul(loss(), weight));
        const { ownLoss } = createRouter(config);
        return {
          fecl: weighted(() => feclLoss(base(), output, target, config, { lossWeights, lossMask }), feclWeight),
          [BALANCE]: weighted(() => balanceLoss(gates), balanceWeight),
          ...(ownLoss && { [ownLoss.name]: ownLoss.value({ energies, timesteps }, routerOf(parameters)) }),
        };
      },
    };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return unstackState(values, this.layout);
  }

  fromStateDict(state: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">> {
    return stackState(state, this.layout);
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): FeRAAdapter {
    const found = layoutOfState(state, source, this.config.router === "energies" ? undefined : this.config);
    for (const key of ["rank", "numExperts", "numBands", "sharedDown"] as const) {
      if (found[key] !== this.config[key]) {
        throw new ShapeError(`${source}: the state has ${key}=${found[key]}, the configuration ${this.config[key]}.`);
      }
    }
    if (found.layers.length === 0) throw new FormatError(source, "names no layers.");
    return new FeRAAdapter(this.config, found.layers);
  }
}

/** The router's parameters, without their prefix. */
function routerOf(parameters: ReadonlyMap<string, Value>): Map<string, Value> {
  const router = new Map<string, Value>();
  for (const [name, value] of parameters) if (name.startsWith(ROUTER)) router.set(name.slice(ROUTER.length), value);
  return router;
}

/** E · Σ_k p_k² − 1, p the mean of gates `[B, E]` over B: 0 … E − 1. */
function balanceLoss(gates: Value): Value {
  const mean = ops.reduceMean(gates, [0]);
  return ops.sub(ops.mul(ops.reduceSum(ops.mul(mean, mean)), gates.shape[1]!), 1);
}
