// LoHa: the change of a weight as the elementwise product of two low-rank products.

import { FormatError, ShapeError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { sameShape } from "../../graph/index.js";
import { type AdaptableLayer, draw } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import type { WeightFusion } from "../adapter.js";
import { chosenLayers, matrixProduct } from "../lora/lora-adapter.js";
import { byLayer, type LayerTensors, LowRankAdapter, type ProductContext } from "../low-rank-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import { tuckerKernel } from "../tucker.js";
import type { LoHaConfig } from "./loha-config.js";

/** LyCORIS's and PEFT's names. */
export const LOHA_NAMES = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"] as const;

/** Shapes of a layer's tensors. */
export function lohaShapes(
  { kind, inFeatures, outFeatures, kernelSize: k }: TargetLayer,
  rank: number,
  useTucker: boolean,
): Map<string, readonly number[]> {
  const isTucker = useTucker && kind === "convolution" && k > 1;
  const tail = kind === "convolution" ? [k, k] : [];
  const pair: readonly (readonly number[])[] = isTucker
    ? [
        [rank, outFeatures],
        [rank, inFeatures],
      ]
    : [
        [outFeatures, rank],
        [rank, inFeatures, ...tail],
      ];
  const shapes = [...pair, ...pair, ...(isTucker ? [0, 1].map(() => [rank, rank, k, k]) : [])];
  return new Map(shapes.map((shape, i) => [LOHA_NAMES[i]!, shape]));
}

/**
 * y = W x + s · ((w1_a w1_b) ∘ (w2_a w2_b)) x, w_a `[out, r]`, w_b `[r, in]` (`[r, in, k, k]` of a convolution); s = alpha / r.
 * With Tucker's decomposition each of both products is one of w_a `[r, out]`, w_b `[r, in]` and t `[r, r, k, k]`.
 *
 * Trained tensors: `PATH.hada_w1_a`, … They begin as LyCORIS's: w1_a normal of 0.1, w1_b and w2_b of 1, w2_a 0, t of 0.1.
 *
 * @see Hyeon-Woo et al. 2021, arXiv:2108.06098
 */
export class LoHaAdapter extends LowRankAdapter<LoHaConfig> {
  /** On the layers that the configuration names. @throws {ConfigError} As `chosenLayers`. */
  static on(layers: readonly TargetLayer[], config: LoHaConfig): LoHaAdapter {
    const shapes = chosenLayers("LoHa", layers, config).map(
      (layer) => [layer, lohaShapes(layer, config.rankOf(layer.path), config.useTucker)] as const,
    );
    return new LoHaAdapter(config, new Map(shapes));
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): LoHaAdapter {
    const { layers, odd } = byLayer(state, LOHA_NAMES);
    if (odd !== undefined) throw new FormatError(source, `"${odd}" is no tensor of a LoHa (PATH.hada_w1_a, …).`);
    if (layers.size === 0) throw new FormatError(source, "holds no LoHa tensors.");
    const shapes = [...layers].map(([path, own]) => {
      const layer = lohaLayer(path, own, source);
      const rank = own.get("hada_w1_b")!.shape[0]!;
      if (rank !== this.config.rankOf(path)) {
        throw new ShapeError(
          `${source}: the state has rank ${rank} at "${path}", the configuration ${this.config.rankOf(path)}.`,
        );
      }
      return [layer, lohaShapes(layer, rank, own.has("hada_t1"))] as const;
    });
    return new LoHaAdapter(this.config, new Map(shapes));
  }

  fuse(fusion: WeightFusion): Value {
    return this.fusedWeight(fusion);
  }

  /** The change itself is computed once for all tokens: no product of its factors with x is smaller. */
  protected override product(layer: AdaptableLayer, x: Value, { tensors }: ProductContext): Value {
    const delta = ops.reshape(this.delta(tensors), layer.weight.shape);
    if (layer.kind === "linear") return ops.linear(x, delta);
    return ops.conv(x, delta, undefined, { stride: layer.stride, padding: layer.padding });
  }

  protected override fresh(end: string, shape: readonly number[], generator: Generator): Tensor<"float32"> {
    if (end === "hada_w2_a") return zeros(shape);
    return draw(shape, { kind: "normal", std: end.endsWith("_b") ? 1 : 0.1 }, generator);
  }

  protected override delta(tensors: LayerTensors<Value>): Value {
    const [first, second] = [1, 2].map((i) => {
      const [a, b, core] = [`hada_w${i}_a`, `hada_w${i}_b`, `hada_t${i}`].map((name) => tensors.get(name));
      return core ? tuckerKernel(core, a!, b!) : matrixProduct(a!, b!);
    });
    return ops.mul(first!, second!);
  }
}

/** A layer by its tensors, which are checked against each other. @throws {FormatError} If they do not fit. */
function lohaLayer(path: string, own: ReadonlyMap<string, Tensor>, source: string): TargetLayer {
  const missing = LOHA_NAMES.slice(0, 4).find((name) => !own.has(name));
  if (missing) throw new FormatError(source, `"${path}" lacks ${missing}.`);
  const [a, b, core] = ["hada_w1_a", "hada_w1_b", "hada_t1"].map((name) => own.get(name)?.shape);
  const outFeatures = (core ? a![1] : a![0]) ?? 0;
  const kernelSize = (core ?? b!)[2] ?? 1;
  const kind = core || b!.length === 4 ? "convolution" : "linear";
  const layer: TargetLayer = { path, kind, inFeatures: b![1] ?? 0, outFeatures, kernelSize };
  const wanted = lohaShapes(layer, b![0] ?? 0, core !== undefined);
  for (const name of LOHA_NAMES) {
    const [given, shape] = [own.get(name)?.shape, wanted.get(name)];
    if (given && shape ? sameShape(given, shape) : given === shape) continue;
    const came = given ? `is [${given.join(",")}]` : "is missing";
    throw new FormatError(source, `"${path}.${name}" ${came}, but its pair asks for [${shape?.join(",") ?? "none"}].`);
  }
  return layer;
}
