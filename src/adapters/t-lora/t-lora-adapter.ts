// T-LoRA: LoRA of whose ranks fewer act the noisier the latents are.

import { ConfigError, FormatError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { AdaptableLayer } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { chosenLayers, kaimingUniform, LORA_A, LORA_B, loraLayersOf, loraShapes } from "../lora/lora-adapter.js";
import { byLayer, LowRankAdapter, lowRankProduct, type ProductContext } from "../low-rank-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import type { TLoRAConfig } from "./t-lora-config.js";

/** Names of their own: a program that knows plain LoRA must not take them for that. */
const NAMES = ["t_lora_A.weight", "t_lora_B.weight"] as const;
/** Whether a state dict is a T-LoRA's, by its names. */
export const isTLoRAState = (state: ReadonlyMap<string, unknown>): boolean =>
  [...state.keys()].some((name) => NAMES.some((end) => name.endsWith(`.${end}`)));

/** T of the models that are adapted. */
const TIMESTEPS = 1000;

/**
 * y = W x + s · B M_t A x; M_t keeps the first ⌊((T − t) / T)^a (r − r_min)⌋ + r_min ranks, T = 1000.
 *
 * Trained tensors: LoRA's, as `PATH.t_lora_A.weight` and `PATH.t_lora_B.weight`.
 *
 * @see arXiv:2507.05964
 */
export class TLoRAAdapter extends LowRankAdapter<TLoRAConfig> {
  /** @param layers - The layers that are adapted. */
  constructor(config: TLoRAConfig, layers: readonly TargetLayer[]) {
    super(config, new Map(layers.map((layer) => [layer, loraShapes(layer, config.rankOf(layer.path), NAMES)])));
  }

  /** On the layers that the configuration names. @throws {ConfigError} As `chosenLayers`. */
  static on(layers: readonly TargetLayer[], config: TLoRAConfig): TLoRAAdapter {
    return new TLoRAAdapter(config, chosenLayers("T-LoRA", layers, config));
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): TLoRAAdapter {
    const { layers, odd } = byLayer(state, NAMES);
    if (odd !== undefined)
      throw new FormatError(source, `"${odd}" is no tensor of a T-LoRA (PATH.${NAMES.join(", PATH.")}).`);
    const pairs = [...layers].flatMap(([path, own]) =>
      [...own].map(([end, value]): [string, Tensor] => [`${path}.${end === NAMES[0] ? LORA_A : LORA_B}`, value]),
    );
    return new TLoRAAdapter(this.config, loraLayersOf(new Map(pairs), this.config, source));
  }

  protected override product(layer: AdaptableLayer, x: Value, { tensors, timesteps }: ProductContext): Value {
    if (!timesteps) {
      throw new ConfigError("T-LoRA: its ranks follow the timestep; a model without timesteps cannot have it.");
    }
    const [down, up] = NAMES.map((name) => tensors.get(name)!) as [Value, Value];
    return lowRankProduct(layer, x, down, up, rankMask(timesteps, down.shape[0]!, this.config));
  }

  protected override fresh(end: string, shape: readonly number[], generator: Generator): Tensor<"float32"> {
    return end === NAMES[1] ? zeros(shape) : kaimingUniform(shape, generator);
  }

  protected override delta(): undefined {
    return undefined;
  }
}

/**
 * M_t: 1 for the ranks that act, 0 for the others.
 *
 * Rank i (from 0) acts where i < ⌊q⌋ + r_min, that is q ≥ i − r_min + 1, q = ((T − t) / T)^a (r − r_min); in t itself that
 * is t ≤ T (1 − ((i − r_min + 1) / (r − r_min))^(1/a)), which needs no power and no rounding in the graph.
 *
 * @param timesteps - float32 `[B]`.
 * @returns `[B, r]`.
 */
export function rankMask(
  timesteps: Value,
  rank: number,
  { minRank, maskPower }: Pick<TLoRAConfig, "minRank" | "maskPower">,
): Value {
  const { graph } = timesteps;
  const last = Float32Array.from({ length: rank }, (_, i) => lastTimestep(i, rank, minRank, maskPower));
  const column = ops.reshape(timesteps, [timesteps.size, 1]);
  const [zero, one] = [0, 1].map((value) => graph.constant(tensor([value], [1, 1])));
  return ops.where(ops.greater(column, graph.constant(tensor(last, [1, rank]))), zero!, one!);
}

/** The last timestep at which rank i acts, counted as the formula counts: in float32 as torch would, and exact for integers. */
function lastTimestep(i: number, rank: number, minRank: number, power: number): number {
  if (i < minRank) return Number.POSITIVE_INFINITY;
  const share = (t: number) => Math.fround(Math.fround((TIMESTEPS - t) / TIMESTEPS) ** power);
  const kept = (t: number) => Math.floor(Math.fround(share(t) * (rank - minRank))) + minRank;
  const estimate = TIMESTEPS * (1 - ((i - minRank + 1) / (rank - minRank)) ** (1 / power));
  // Timesteps of training are integers; at these the rounding of the formula decides.
  const nearest = Math.round(estimate);
  if (Math.abs(nearest - estimate) > 1e-3) return estimate;
  return kept(nearest) > i ? nearest : nearest - 0.5;
}
