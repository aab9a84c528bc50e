// DoRA: LoRA on the direction of each layer's weight, and its magnitude learned beside it.

import { FormatError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { sameShape } from "../../graph/index.js";
import type { AdaptableLayer } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { Tensor, zeros } from "../../tensor/tensor.js";
import type { Adapter, AttachedAdapter, AttachInputs, WeightFusion } from "../adapter.js";
import { LoRAAdapter, matrixProduct } from "../lora/lora-adapter.js";
import { dropInputs, lowRankProduct } from "../low-rank-adapter.js";
import type { TargetLayer } from "../target-layers.js";
import type { DoRAConfig } from "./dora-config.js";

const MAGNITUDE = ".lora_magnitude_vector";
/** Whether a magnitude is kept per output or per input. */
type Axis = "output" | "input";

/**
 * y = W' x + b with W' = m ∘ V / ‖V‖, V = W + s B A; one magnitude and norm per output (a row of V), or, as LyCORIS has it
 * by default, per input. The norm is a constant to the gradient, as in the paper (section 4.3).
 *
 * Trained tensors: LoRA's, and `PATH.lora_magnitude_vector`: `[out]`, of a convolution `[1, out, 1, 1]`; per input `[1, in]`.
 * Layers without one are plain LoRA. A scale of the adapter multiplies s, as in PEFT: at 0 the magnitudes stay.
 *
 * @see Liu et al. 2024, arXiv:2402.09353
 */
export class DoRAAdapter implements Adapter<DoRAConfig> {
  readonly lossNames: readonly string[] = [];
  /** The norm has the scale in it. */
  readonly isLinearInScale = false;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  private readonly lora: LoRAAdapter;

  /** @param axes - By path; layers without one are plain LoRA. */
  constructor(
    readonly config: DoRAConfig,
    lora: LoRAAdapter,
    private readonly axes: ReadonlyMap<string, Axis>,
  ) {
    this.lora = lora;
    const magnitudes = lora.layers.flatMap((layer): [string, readonly number[]][] => {
      const axis = axes.get(layer.path);
      return axis ? [[layer.path + MAGNITUDE, magnitudeShape(layer, axis)]] : [];
    });
    this.shapes = new Map([...lora.shapes, ...magnitudes]);
  }

  /** On the layers that the configuration names, a magnitude per output. @throws {ConfigError} As {@link LoRAAdapter.on}. */
  static on(layers: readonly TargetLayer[], config: DoRAConfig): DoRAAdapter {
    const lora = LoRAAdapter.on(layers, config.lora);
    return new DoRAAdapter(config, lora, new Map(lora.layers.map(({ path }) => [path, "output"])));
  }

  get layers(): readonly TargetLayer[] {
    return this.lora.layers;
  }

  /** LoRA's; magnitudes 0, until those of {@link fromWeights} are put in their place. */
  initialize(generator: Generator): Map<string, Tensor<"float32">> {
    const magnitudes = [...this.shapes].filter(([name]) => name.endsWith(MAGNITUDE));
    return new Map([
      ...this.lora.initialize(generator),
      ...magnitudes.map(([name, shape]): [string, Tensor<"float32">] => [name, zeros(shape)]),
    ]);
  }

  /** m = ‖W‖, so that W' = W. */
  fromWeights(weightOf: (layer: TargetLayer) => Value): Map<string, Value> {
    return new Map(
      this.layers.flatMap((layer): [string, Value][] => {
        const axis = this.axes.get(layer.path);
        if (!axis) return [];
        return [[layer.path + MAGNITUDE, ops.reshape(norms(weightOf(layer), axis), magnitudeShape(layer, axis))]];
      }),
    );
  }

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter {
    const { lora } = this.config;
    const masks = new Map<string, readonly number[]>();
    const isDropping = (inputs.training ?? false) && lora.dropout > 0;
    const apply = (layer: AdaptableLayer, x: Value, y: Value): Value => {
      const down = parameters.get(`${layer.path}.lora_A.weight`);
      const up = parameters.get(`${layer.path}.lora_B.weight`);
      if (!down || !up) return y;
      const scale = lora.scaleOf(layer.path);
      const scaled = (value: Value): Value => {
        const own = scale === 1 ? value : ops.mul(value, scale);
        return inputs.scale ? ops.mul(own, inputs.scale) : own;
      };
      const dropped = isDropping ? dropInputs(layer, x, masks) : x;
      const magnitude = parameters.get(layer.path + MAGNITUDE);
      if (!magnitude) return ops.add(y, scaled(lowRankProduct(layer, dropped, down, up)));
      const axis = this.axes.get(layer.path)!;
      const factor = ops.div(
        ops.reshape(magnitude, [magnitude.size]),
        norms(layer.weight, axis, scaled(matrixProduct(up, down))),
      );
      const perChannel = layer.kind === "linear" ? factor : ops.reshape(factor, [magnitude.size, 1, 1]);
      if (axis === "input") {
        const changed = frozenProduct(layer, ops.mul(x, ops.sub(perChannel, 1)));
        const added = scaled(lowRankProduct(layer, ops.mul(dropped, perChannel), down, up));
        return ops.add(y, ops.add(changed, added));
      }
      const { bias } = layer;
      const shaped = bias && layer.kind === "convolution" ? ops.reshape(bias, [bias.size, 1, 1]) : bias;
      const frozen = shaped ? ops.sub(y, shaped) : y;
      const adapted = ops.mul(ops.add(frozen, scaled(lowRankProduct(layer, dropped, down, up))), perChannel);
      return shaped ? ops.add(adapted, shaped) : adapted;
    };
    return { layers: { apply }, masks, reports: {} };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return this.copied((name) => values.get(name)!);
  }

  fromStateDict(state: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">> {
    return this.copied((name) => state.get(name)!.data);
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): DoRAAdapter {
    const isMagnitude = (name: string) => name.endsWith(MAGNITUDE);
    const products = new Map([...state].filter(([name]) => !isMagnitude(name)));
    const lora = new LoRAAdapter(this.config.lora, []).withLayersOf(products, source);
    const axes = new Map<string, Axis>();
    for (const [name, { shape }] of state) {
      if (!isMagnitude(name)) continue;
      const layer = lora.layers.find(({ path }) => path + MAGNITUDE === name);
      const axis = (["output", "input"] as const).find(
        (each) => layer && sameShape(magnitudeShape(layer, each), shape),
      );
      if (!layer || !axis)
        throw new FormatError(source, `"${name}" [${shape.join(",")}] fits no layer of this adapter.`);
      axes.set(layer.path, axis);
    }
    return new DoRAAdapter(this.config, lora, axes);
  }

  /** m ∘ (W + s B A) / ‖W + s B A‖; what other adapters added to W is scaled per output with it, as {@link attach} does. */
  fuse({ path, frozen, current, parameters, scale }: WeightFusion): Value {
    const [down, up] = ["lora_A", "lora_B"].map((end) => parameters.get(`${path}.${end}.weight`)!);
    const change = ops.mul(matrixProduct(up!, down!), scale * this.config.lora.scaleOf(path));
    const magnitude = parameters.get(path + MAGNITUDE);
    const shaped = ops.reshape(change, frozen.shape);
    const axis = this.axes.get(path);
    if (!magnitude || !axis) return ops.add(current, shaped);
    const factor = ops.div(ops.reshape(magnitude, [magnitude.size]), norms(frozen, axis, change));
    const tail = new Array<number>(frozen.rank - 2).fill(1);
    if (axis === "output") {
      return ops.mul(ops.add(current, shaped), ops.reshape(factor, [magnitude.size, 1, ...tail]));
    }
    const columns = ops.reshape(factor, [1, magnitude.size, ...tail]);
    return ops.add(current, ops.sub(ops.mul(ops.add(frozen, shaped), columns), frozen));
  }

  private copied(of: (name: string) => Float32Array): Map<string, Tensor<"float32">> {
    return new Map([...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, of(name).slice())]));
  }
}

function magnitudeShape({ kind, inFeatures, outFeatures }: TargetLayer, axis: Axis): readonly number[] {
  if (axis === "input") return [1, inFeatures];
  return kind === "linear" ? [outFeatures] : [1, outFeatures, 1, 1];
}

/** W x, without the bias. */
function frozenProduct({ kind, weight, stride, padding }: AdaptableLayer, x: Value): Value {
  return kind === "linear" ? ops.linear(x, weight) : ops.conv(x, weight, undefined, { stride, padding });
}

/** ‖W + change‖ per output, or per input; no gradient passes. @param change - `[out, in·k·k]`. */
function norms(weight: Value, axis: Axis, change?: Value): Value {
  const [out, inputs] = weight.shape as [number, number];
  const direction = change ? ops.add(ops.reshape(weight, change.shape), change) : weight;
  const square = ops.reshape(ops.mul(direction, direction), [out, inputs, weight.size / (out * inputs)]);
  const sum = ops.reduceSum(square, axis === "output" ? [1, 2] : [0, 2]);
  return ops.stopGradient(ops.sqrt(sum));
}
