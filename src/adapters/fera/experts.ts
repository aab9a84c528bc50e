// Low-rank experts on linear layers: which layers get them, and the experts of a layer as one low-rank product.

import { ConfigError, ShapeError } from "../../errors.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { type UNet2DConditionModel, unet, unetInputs } from "../../models/unet-2d-condition/unet-2d-condition.js";
import { type AdapterSet, Scope } from "../../nn/index.js";
import { tensor } from "../../tensor/tensor.js";
import type { FeRAConfig, LayerMatching } from "./fera-config.js";

/** A linear layer, y = x Wᵀ + b with W `[outFeatures, inFeatures]`. */
export interface LinearLayer {
  /** Module path, e.g. `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`. */
  path: string;
  inFeatures: number;
  outFeatures: number;
}

/** All linear layers of a UNet, in the order in which it evaluates them. */
export function linearLayers(model: UNet2DConditionModel): LinearLayer[] {
  const found = new Map<string, LinearLayer>();
  const recorder: AdapterSet = {
    apply(path, x, y) {
      found.set(path, { path, inFeatures: x.shape.at(-1)!, outFeatures: y.shape.at(-1)! });
      return y;
    },
  };
  const graph = new Graph();
  const size = 2 ** (model.config.blocks.length - 1);
  const inputs = unetInputs(graph, model.config, { batchSize: 1, height: size, width: size, tokens: 1 });
  unet(new Scope(graph, model.weights, recorder), inputs, model.config);
  return [...found.values()];
}

/** Whether a target names the layer at `path`; see {@link LayerMatching}. */
export function matchesTarget(path: string, target: string, matching: LayerMatching): boolean {
  if (matching === "name") return path.slice(path.lastIndexOf(".") + 1) === target;
  return path === target || path.endsWith(`.${target}`);
}

/**
 * The layers that a configuration adapts.
 *
 * @throws {ConfigError} If none is; or, matching by path, if a target names no linear layer.
 */
export function adaptedLayers(layers: readonly LinearLayer[], config: FeRAConfig): LinearLayer[] {
  const { targetModules, matching } = config;
  const missing = targetModules.filter((target) => !layers.some(({ path }) => matchesTarget(path, target, matching)));
  if (missing.length > 0 && (matching === "path" || missing.length === targetModules.length)) {
    throw new ConfigError(
      `targetModules: "${missing[0]}" names no linear layer of this model (matching by ${matching}); ` +
        `layers are named like ${[...new Set(layers.map(({ path }) => pathSuffix(path)))].slice(0, 12).join(", ")}.`,
    );
  }
  return layers.filter(({ path }) => targetModules.some((target) => matchesTarget(path, target, matching)));
}

/** The shortest end of a path that starts with a name and not with an index: `to_q`, `to_out.0`, `net.0.proj`. */
export function pathSuffix(path: string): string {
  const parts = path.split(".");
  let start = parts.length - 1;
  while (start > 0 && /^\d+$/.test(parts[start]!)) start--;
  return parts.slice(start).join(".");
}

/**
 * Gates of the joined experts: each expert's gate r times, times alpha / rank.
 *
 * @param weights - `[B, E]`.
 * @returns `[B, E·r]`.
 */
export function expandGates(weights: Value, rank: number, alpha: number): Value {
  const experts = weights.shape[1]!;
  const data = new Float32Array(experts * experts * rank);
  for (let k = 0; k < experts; k++) data.fill(alpha / rank, k * (experts + 1) * rank, (k * (experts + 1) + 1) * rank);
  const expansion = weights.graph.constant(tensor(data, [experts, experts * rank]));
  return ops.matMul(weights, expansion);
}

/** Values of one layer's experts. */
export interface ExpertValues {
  /** All `lora_down` under each other, `[E·r, in]`. */
  down: Value;
  /** All `lora_up` beside each other, `[out, E·r]`. */
  up: Value;
  /** {@link expandGates}, `[B, E·r]`. */
  gates: Value;
  /** 0 or 1/(1 − p) for every element of x. */
  dropoutMask?: Value;
}

/**
 * y + Σ_k w_k · (alpha/r) · up_k(down_k(dropout(x))) as one product of rank E·r: y + ((dropout(x) Dᵀ) ∘ g) Uᵀ.
 *
 * @param x - `[B, ..., in]`; all positions of a sample share its gates.
 * @param y - `[B, ..., out]`.
 * @throws {ShapeError} If x has another batch size than the gates.
 */
export function addExperts(x: Value, y: Value, { down, up, gates, dropoutMask }: ExpertValues): Value {
  const [batch, width] = gates.shape as [number, number];
  if (x.rank < 2 || x.shape[0] !== batch) {
    throw new ShapeError(`experts: the layer's input must be [B, ..., in] with the gates' B=${batch}; got ${x}.`);
  }
  const dropped = dropoutMask ? ops.mul(x, dropoutMask) : x;
  const perSample = ops.reshape(gates, [batch, ...new Array<number>(x.rank - 2).fill(1), width]);
  const hidden = ops.mul(ops.linear(dropped, down), perSample);
  return ops.add(y, ops.linear(hidden, up));
}

/** Injects experts into the layers of a model that is being built. */
export class RoutedExperts implements AdapterSet {
  /** Names and shapes of the dropout masks that a run must feed. */
  readonly masks = new Map<string, readonly number[]>();

  /**
   * @param parameters - `PATH.down` and `PATH.up` of every adapted layer.
   * @param gates - {@link expandGates}.
   * @param dropout - Whether each layer takes a mask as the graph input `PATH.dropout`.
   */
  constructor(
    private readonly parameters: ReadonlyMap<string, Value>,
    private readonly gates: Value,
    private readonly dropout: boolean,
  ) {}

  apply(path: string, x: Value, y: Value): Value {
    const down = this.parameters.get(`${path}.down`);
    const up = this.parameters.get(`${path}.up`);
    if (!down || !up) return y;
    let dropoutMask: Value | undefined;
    if (this.dropout) {
      const name = `${path}.dropout`;
      dropoutMask = x.graph.input(name, "float32", x.shape);
      this.masks.set(name, x.shape);
    }
    return addExperts(x, y, { down, up, gates: this.gates, dropoutMask });
  }
}
