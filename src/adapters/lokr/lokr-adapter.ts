// LoKr: the change of a weight as a Kronecker product, the larger factor of low rank or whole.

import { FormatError, ShapeError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { AdaptableLayer } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, zeros } from "../../tensor/tensor.js";
import type { WeightFusion } from "../adapter.js";
import { chosenLayers, kaimingUniform, matrixProduct } from "../lora/lora-adapter.js";
import {
  byLayer,
  type LayerTensors,
  LowRankAdapter,
  lowRankProduct,
  type ProductContext,
} from "../low-rank-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import { tuckerKernel } from "../tucker.js";
import type { LoKrConfig } from "./lokr-config.js";
import { LOKR_NAMES, lokrLayer, lokrShapes } from "./lokr-shapes.js";

/**
 * y = W x + s · (w1 ⊗ w2) x, s = alpha / r. w1 `[o, i]` and w2 `[p, q]` (`[p, q, k, k]` of a convolution), o p the outputs and
 * i q the inputs; each whole, or a product of its `_a` and `_b`.
 *
 * The product with x needs no Kronecker product: x as a matrix `[i, q]` becomes w1 · x · w2ᵀ.
 *
 * Trained tensors: `PATH.lokr_w1`, `PATH.lokr_w2_a`, … They begin as LyCORIS's: {@link kaimingUniform}, but for w2 or w2_b, 0.
 * LyCORIS takes s = 1 where both factors are whole; here s is alpha / r everywhere, as in PEFT, and 1 by default.
 *
 * @see Yeh et al. 2023, arXiv:2309.14859
 */
export class LoKrAdapter extends LowRankAdapter<LoKrConfig> {
  /** On the layers that the configuration names; any rank is one. @throws {ConfigError} As `chosenLayers`. */
  static on(layers: readonly TargetLayer[], config: LoKrConfig): LoKrAdapter {
    const shapes = chosenLayers("LoKr", layers, config, false).map(
      (layer) => [layer, lokrShapes(layer, config.rankOf(layer.path), config)] as const,
    );
    return new LoKrAdapter(config, new Map(shapes));
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): LoKrAdapter {
    const { layers, odd } = byLayer(state, LOKR_NAMES);
    if (odd !== undefined) throw new FormatError(source, `"${odd}" is no tensor of a LoKr (PATH.lokr_w1, …).`);
    if (layers.size === 0) throw new FormatError(source, "holds no LoKr tensors.");
    const shapes = [...layers].map(([path, own]) => {
      const found = new Map([...own].map(([name, { shape }]) => [name, shape]));
      const { layer, rank } = lokrLayer(path, found, source);
      if (rank !== undefined && rank !== this.config.rankOf(path)) {
        throw new ShapeError(
          `${source}: the state has rank ${rank} at "${path}", the configuration ${this.config.rankOf(path)}.`,
        );
      }
      return [layer, found] as const;
    });
    return new LoKrAdapter(this.config, new Map(shapes));
  }

  fuse(fusion: WeightFusion): Value {
    return this.fusedWeight(fusion);
  }

  protected override product(layer: AdaptableLayer, x: Value, { tensors }: ProductContext): Value {
    const small = smallFactor(tensors);
    return layer.kind === "linear" ? linearProduct(x, small, tensors) : convolutionProduct(layer, x, small, tensors);
  }

  protected override fresh(end: string, shape: readonly number[], generator: Generator): Tensor<"float32"> {
    return end === "lokr_w2" || end === "lokr_w2_b" ? zeros(shape) : kaimingUniform(shape, generator);
  }

  protected override delta(tensors: LayerTensors<Value>): Value {
    const small = smallFactor(tensors);
    const large = largeFactor(tensors);
    const [outSmall, inSmall] = small.shape as [number, number];
    const [outLarge, inLarge] = large.shape as [number, number];
    const pixels = large.size / (outLarge * inLarge);
    const outer = ops.mul(
      ops.reshape(small, [outSmall, 1, inSmall, 1]),
      ops.reshape(large, [1, outLarge, 1, inLarge * pixels]),
    );
    return ops.reshape(outer, [outSmall * outLarge, inSmall * inLarge * pixels]);
  }
}

const smallFactor = (tensors: LayerTensors<Value>): Value =>
  tensors.get("lokr_w1") ?? ops.matMul(tensors.get("lokr_w1_a")!, tensors.get("lokr_w1_b")!);

/** w2, `[p, q]` or `[p, q, k, k]`. */
function largeFactor(tensors: LayerTensors<Value>): Value {
  const [whole, a, b, core] = ["lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"].map((name) => tensors.get(name));
  if (whole) return whole;
  if (core) return tuckerKernel(core, a!, b!);
  return ops.reshape(matrixProduct(a!, b!), [a!.shape[0]!, ...b!.shape.slice(1)]);
}

/** x `[..., i·q]` to `[..., o·p]`: w2 along q, then w1 along i, each one product for all tokens. */
function linearProduct(x: Value, small: Value, tensors: LayerTensors<Value>): Value {
  const [outSmall, inSmall] = small.shape as [number, number];
  const lead = x.shape.slice(0, -1);
  const rows = lead.reduce((product, size) => product * size, 1);
  const split = ops.reshape(x, [rows, inSmall, x.shape.at(-1)! / inSmall]);
  const whole = tensors.get("lokr_w2");
  const large = whole
    ? ops.linear(split, whole)
    : ops.linear(ops.linear(split, tensors.get("lokr_w2_b")!), tensors.get("lokr_w2_a")!);
  const outLarge = large.shape[2]!;
  const mixed = ops.linear(ops.transpose(large, [0, 2, 1]), small);
  return ops.reshape(ops.transpose(mixed, [0, 2, 1]), [...lead, outSmall * outLarge]);
}

/** x `[B, i·q, H, W]`: each of i groups of channels is convolved with w2; then the groups are mixed by w1. */
function convolutionProduct(layer: AdaptableLayer, x: Value, small: Value, tensors: LayerTensors<Value>): Value {
  const [outSmall, inSmall] = small.shape as [number, number];
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const { stride, padding } = layer;
  const groups = ops.reshape(x, [batch * inSmall, channels / inSmall, height, width]);
  const [a, b] = [tensors.get("lokr_w2_a"), tensors.get("lokr_w2_b")];
  const isFactored = a !== undefined && !tensors.has("lokr_t2");
  const large = isFactored
    ? lowRankProduct(layer, groups, b!, a)
    : ops.conv(groups, largeFactor(tensors), undefined, { stride, padding });
  const [, outLarge, outHeight, outWidth] = large.shape as [number, number, number, number];
  const mixed = ops.matMul(small, ops.reshape(large, [batch, inSmall, outLarge * outHeight * outWidth]));
  return ops.reshape(mixed, [batch, outSmall * outLarge, outHeight, outWidth]);
}
