// FeRA's experts on linear layers and convolutions: those of a layer as one low-rank product.

import { ShapeError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { AdaptableLayer, LayerAdapters } from "../../nn/index.js";
import { tensor } from "../../tensor/tensor.js";
import { lowRankProduct } from "../low-rank-adapter.js";

/**
 * Gates of the stacked experts: each expert's gate r times, times alpha / rank.
 *
 * @param gates - `[B, E]`.
 * @returns `[B, E·r]`.
 */
export function expandGates(gates: Value, rank: number, alpha: number): Value {
  const experts = gates.shape[1]!;
  const data = new Float32Array(experts * experts * rank);
  for (let k = 0; k < experts; k++) data.fill(alpha / rank, k * (experts + 1) * rank, (k * (experts + 1) + 1) * rank);
  const expansion = gates.graph.constant(tensor(data, [experts, experts * rank]));
  return ops.matMul(gates, expansion);
}

/** Values of one layer's experts. */
export interface ExpertValues {
  /** All `lora_down` under each other, `[E·r, in]`, or the one that they share, `[r, in]`; `[…, in, k, k]` of a convolution. */
  down: Value;
  /** All `lora_up` beside each other, `[out, E·r]`; `[out, E·r, 1, 1]` of a convolution. */
  up: Value;
  /** {@link expandGates}, `[B, E·r]`. */
  gates: Value;
  /** 0 or 1/(1 − p) for every element of x. */
  dropoutMask?: Value;
}

/**
 * y + Σ_k w_k · (alpha/r) · up_k(down_k(dropout(x))) as one product of rank E·r: y + ((dropout(x) Dᵀ) ∘ g) Uᵀ.
 *
 * @param x - `[B, ..., in]`, or `[B, in, H, W]` of a convolution; all positions of a sample share its gates.
 * @param y - `[B, ..., out]`.
 * @param layer - Default: a linear one.
 * @throws {ShapeError} If x has another batch size than the gates.
 */
export function addExperts(
  x: Value,
  y: Value,
  { down, up, gates, dropoutMask }: ExpertValues,
  layer: Pick<AdaptableLayer, "kind" | "stride" | "padding"> = { kind: "linear" },
): Value {
  const [batch] = gates.shape as [number, number];
  if (x.rank < 2 || x.shape[0] !== batch) {
    throw new ShapeError(`experts: the layer's input must be [B, ..., in] with the gates' B=${batch}; got ${x}.`);
  }
  const dropped = dropoutMask ? ops.mul(x, dropoutMask) : x;
  return ops.add(y, lowRankProduct(layer, dropped, down, up, gates));
}

/** Injects experts into the layers of a model that is being built. */
export class RoutedExperts implements LayerAdapters {
  /** Names and shapes of the dropout masks that a run must feed. */
  readonly masks = new Map<string, readonly number[]>();

  /**
   * @param parameters - `PATH.down` and `PATH.up` of every adapted layer.
   * @param gatesAt - {@link expandGates}, by the layer's path.
   * @param dropout - Whether each layer takes a mask as the graph input `PATH.dropout`.
   */
  constructor(
    private readonly parameters: ReadonlyMap<string, Value>,
    private readonly gatesAt: (path: string) => Value,
    private readonly dropout: boolean,
  ) {}

  apply(layer: AdaptableLayer, x: Value, y: Value): Value {
    const { path } = layer;
    const down = this.parameters.get(`${path}.down`);
    const up = this.parameters.get(`${path}.up`);
    if (!down || !up) return y;
    let dropoutMask: Value | undefined;
    if (this.dropout) {
      const name = `${path}.dropout`;
      dropoutMask = x.graph.input(name, "float32", x.shape);
      this.masks.set(name, x.shape);
    }
    return addExperts(x, y, { down, up, gates: this.gatesAt(path), dropoutMask }, layer);
  }
}
