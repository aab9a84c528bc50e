// LoRA: one low-rank product beside each adapted linear layer or convolution, in any model, text encoders included.

import { FormatError, ShapeError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { sameShape } from "../../graph/index.js";
import { type AdaptableLayer, draw } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import type { WeightFusion } from "../adapter.js";
import { type LayerTensors, LowRankAdapter, lowRankProduct, type ProductContext } from "../low-rank-adapter.js";
import type { LowRankConfig } from "../low-rank-config.js";
import { checkPatterns, checkRank, selectLayers, type TargetLayer } from "../target-layers.js";
import type { LoRAConfig } from "./lora-config.js";

export const LORA_A = "lora_A.weight";
export const LORA_B = "lora_B.weight";
const STATE_NAME = /^(.+)\.lora_(A|B)\.weight$/s;

/** Shapes of a layer's pair of matrices, by the end of their names. */
export function loraShapes(
  { kind, inFeatures, outFeatures, kernelSize: k }: TargetLayer,
  rank: number,
  [down, up]: readonly [string, string] = [LORA_A, LORA_B],
): Map<string, readonly number[]> {
  const isLinear = kind === "linear";
  return new Map([
    [down, isLinear ? [rank, inFeatures] : [rank, inFeatures, k, k]],
    [up, isLinear ? [outFeatures, rank] : [outFeatures, rank, 1, 1]],
  ]);
}

/**
 * The layers that a configuration of LoRA's family names, its ranks and alphas being for these.
 *
 * @throws {ConfigError} If its targets name none, a rank or alpha is given for none of them, or `checksRank` and a rank is
 *   larger than a matrix can have.
 */
export function chosenLayers(
  kind: string,
  layers: readonly TargetLayer[],
  config: LowRankConfig,
  checksRank = true,
): TargetLayer[] {
  const chosen = selectLayers(layers, config);
  if (checksRank) checkRank(kind, config.rank, chosen);
  const { rankPattern, alphaPattern } = config;
  checkPatterns({ rankPattern, alphaPattern }, chosen);
  return chosen;
}

/** A uniform in ±1/√fan_in (Kaiming, a = √5). */
export function kaimingUniform(shape: readonly number[], generator: Generator): Tensor<"float32"> {
  const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
  return draw(shape, { kind: "uniform", bound: 1 / Math.sqrt(fanIn) }, generator);
}

/**
 * y = W x + s · B A x, with A `[r, in]` (`[r, in, k, k]` for a convolution, of its stride and padding) and B `[out, r]`;
 * s = alpha / r, or alpha / √r.
 *
 * Trained tensors: `PATH.lora_A.weight` and `PATH.lora_B.weight`, PEFT's names. A begins as {@link kaimingUniform}, B as 0.
 *
 * @see Hu et al. 2021, arXiv:2106.09685
 */
export class LoRAAdapter extends LowRankAdapter<LoRAConfig> {
  /** @param layers - The layers that are adapted. */
  constructor(config: LoRAConfig, layers: readonly TargetLayer[]) {
    super(config, new Map(layers.map((layer) => [layer, loraShapes(layer, config.rankOf(layer.path))])));
  }

  /** On the layers that the configuration names. @throws {ConfigError} As {@link chosenLayers}. */
  static on(layers: readonly TargetLayer[], config: LoRAConfig): LoRAAdapter {
    return new LoRAAdapter(config, chosenLayers("LoRA", layers, config));
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): LoRAAdapter {
    return new LoRAAdapter(this.config, loraLayersOf(state, this.config, source));
  }

  fuse(fusion: WeightFusion): Value {
    return this.fusedWeight(fusion);
  }

  protected override product(layer: AdaptableLayer, x: Value, { tensors }: ProductContext): Value {
    return lowRankProduct(layer, x, tensors.get(LORA_A)!, tensors.get(LORA_B)!);
  }

  protected override fresh(end: string, shape: readonly number[], generator: Generator): Tensor<"float32"> {
    return end === LORA_B ? zeros(shape) : kaimingUniform(shape, generator);
  }

  protected override delta(tensors: LayerTensors<Value>): Value {
    return matrixProduct(tensors.get(LORA_B)!, tensors.get(LORA_A)!);
  }
}

/** B A as `[out, in·k·k]`. */
export function matrixProduct(up: Value, down: Value): Value {
  const rank = down.shape[0]!;
  return ops.matMul(ops.reshape(up, [up.size / rank, rank]), ops.reshape(down, [rank, down.size / rank]));
}

/**
 * The layers whose pairs of matrices a state dict holds.
 *
 * @throws {FormatError | ShapeError} As `Adapter.withLayersOf`.
 */
export function loraLayersOf(state: ReadonlyMap<string, Tensor>, config: LowRankConfig, source: string): TargetLayer[] {
  const layers = new Map<string, TargetLayer>();
  for (const name of state.keys()) {
    const match = STATE_NAME.exec(name);
    if (!match)
      throw new FormatError(source, `"${name}" is no tensor of a LoRA (PATH.lora_A.weight, PATH.lora_B.weight).`);
    const path = match[1]!;
    if (layers.has(path)) continue;
    const down = state.get(`${path}.${LORA_A}`);
    const up = state.get(`${path}.${LORA_B}`);
    if (!down || !up) throw new FormatError(source, `"${path}" lacks ${down ? "lora_B" : "lora_A"}.weight.`);
    const [rank = 0, inFeatures = 0, kernelSize = 1] = down.shape;
    if (rank !== config.rankOf(path)) {
      throw new ShapeError(
        `${source}: the state has rank ${rank} at "${path}", the configuration ${config.rankOf(path)}.`,
      );
    }
    const kind = down.shape.length === 4 ? "convolution" : "linear";
    const layer: TargetLayer = { path, kind, inFeatures, outFeatures: up.shape[0] ?? 0, kernelSize };
    for (const [end, shape] of loraShapes(layer, rank)) {
      const given = state.get(`${path}.${end}`)!;
      if (sameShape(given.shape, shape)) continue;
      throw new FormatError(
        source,
        `"${path}.${end}" is [${given.shape.join(",")}], but its pair asks for [${shape.join(",")}].`,
      );
    }
    layers.set(path, layer);
  }
  if (layers.size === 0) throw new FormatError(source, "holds no LoRA tensors.");
  return [...layers.values()];
}
