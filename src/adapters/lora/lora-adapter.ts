// LoRA: one low-rank product beside each adapted linear layer or convolution, in any model, text encoders included.

import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { sameShape } from "../../graph/index.js";
import { type AdaptableLayer, draw } from "../../nn/index.js";
import type { Generator } from "../../tensor/random.js";
import { Tensor, zeros } from "../../tensor/tensor.js";
import type { Adapter, AttachedAdapter, AttachInputs } from "../adapter.js";
import { checkRank, selectLayers, type TargetLayer } from "../target-layers.js";
import type { LoRAConfig } from "./lora-config.js";

const STATE_NAME = /^(.+)\.lora_(A|B)\.weight$/s;

/**
 * y = W x + s · B A x, with A `[r, in]` (`[r, in, k, k]` for a convolution, of its stride and padding) and B `[out, r]`;
 * s = alpha / r, or alpha / √r.
 *
 * Trained tensors: `PATH.lora_A.weight` and `PATH.lora_B.weight`, PEFT's names.
 *
 * @see Hu et al. 2021, arXiv:2106.09685
 */
export class LoRAAdapter implements Adapter<LoRAConfig> {
  readonly lossNames: readonly string[] = [];
  readonly shapes: ReadonlyMap<string, readonly number[]>;

  /** @param layers - The layers that are adapted. */
  constructor(
    readonly config: LoRAConfig,
    readonly layers: readonly TargetLayer[],
  ) {
    this.shapes = new Map(
      layers.flatMap(({ path, kind, inFeatures, outFeatures, kernelSize: k }) => {
        const rank = config.rankOf(path);
        const isLinear = kind === "linear";
        return [
          [`${path}.lora_A.weight`, isLinear ? [rank, inFeatures] : [rank, inFeatures, k, k]],
          [`${path}.lora_B.weight`, isLinear ? [outFeatures, rank] : [outFeatures, rank, 1, 1]],
        ] as [string, readonly number[]][];
      }),
    );
  }

  /**
   * On the layers that the configuration names.
   *
   * @throws {ConfigError} If its targets name none, the rank is larger than any of them can have, or a rank or alpha is
   *   given for a path that is none of theirs.
   */
  static on(layers: readonly TargetLayer[], config: LoRAConfig): LoRAAdapter {
    const chosen = selectLayers(layers, config.targetModules, config.matching);
    checkRank("LoRA", config.rank, chosen);
    checkPatterns(config, chosen);
    return new LoRAAdapter(config, chosen);
  }

  /** A uniform in ±1/√fan_in (Kaiming, a = √5), B 0. */
  initialize(generator: Generator): Map<string, Tensor<"float32">> {
    return new Map(
      [...this.shapes].map(([name, shape]) => {
        if (name.endsWith(".lora_B.weight")) return [name, zeros(shape)];
        const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
        return [name, draw(shape, { kind: "uniform", bound: 1 / Math.sqrt(fanIn) }, generator)];
      }),
    );
  }

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter {
    const { config } = this;
    const dropout = (inputs.training ?? false) && config.dropout > 0;
    const masks = new Map<string, readonly number[]>();
    const apply = (layer: AdaptableLayer, x: Value, y: Value): Value => {
      const down = parameters.get(`${layer.path}.lora_A.weight`);
      const up = parameters.get(`${layer.path}.lora_B.weight`);
      if (!down || !up) return y;
      const dropped = dropout ? dropInputs(layer, x, masks) : x;
      const scale = config.scaleOf(layer.path);
      const added = lowRankProduct(layer, dropped, down, up);
      const scaled = scale === 1 ? added : ops.mul(added, scale);
      return ops.add(y, inputs.scale ? ops.mul(scaled, inputs.scale) : scaled);
    };
    return { layers: { apply }, masks, reports: {} };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return new Map(
      [...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, values.get(name)!.slice())]),
    );
  }

  fromStateDict(state: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">> {
    return new Map(
      [...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, state.get(name)!.data.slice())]),
    );
  }

  withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): LoRAAdapter {
    const layers = new Map<string, TargetLayer>();
    for (const name of state.keys()) {
      const match = STATE_NAME.exec(name);
      if (!match)
        throw new FormatError(source, `"${name}" is no tensor of a LoRA (PATH.lora_A.weight, PATH.lora_B.weight).`);
      const path = match[1]!;
      if (layers.has(path)) continue;
      const down = state.get(`${path}.lora_A.weight`);
      const up = state.get(`${path}.lora_B.weight`);
      if (!down || !up) throw new FormatError(source, `"${path}" lacks ${down ? "lora_B" : "lora_A"}.weight.`);
      const [rank = 0, inFeatures = 0, kernelSize = 1] = down.shape;
      if (rank !== this.config.rankOf(path)) {
        throw new ShapeError(
          `${source}: the state has rank ${rank} at "${path}", the configuration ${this.config.rankOf(path)}.`,
        );
      }
      const kind = down.shape.length === 4 ? "convolution" : "linear";
      layers.set(path, { path, kind, inFeatures, outFeatures: up.shape[0] ?? 0, kernelSize });
    }
    if (layers.size === 0) throw new FormatError(source, "holds no LoRA tensors.");
    const adapter = new LoRAAdapter(this.config, [...layers.values()]);
    for (const [name, shape] of adapter.shapes) {
      const given = state.get(name)!;
      if (!sameShape(given.shape, shape)) {
        throw new FormatError(
          source,
          `"${name}" is [${given.shape.join(",")}], but its pair asks for [${shape.join(",")}].`,
        );
      }
    }
    return adapter;
  }
}

/** A layer's input with some of its values set to 0, by a mask that the run is fed, as `PATH.dropout`. */
export function dropInputs({ path }: AdaptableLayer, x: Value, masks: Map<string, readonly number[]>): Value {
  const name = `${path}.dropout`;
  masks.set(name, x.shape);
  return ops.mul(x, x.graph.input(name, "float32", x.shape));
}

/** B A x; of a convolution B · conv(x, A), whose second convolution is 1×1, a matrix product over channels. */
export function lowRankProduct(layer: AdaptableLayer, x: Value, down: Value, up: Value): Value {
  if (layer.kind === "linear") return ops.linear(ops.linear(x, down), up);
  const { stride, padding } = layer;
  const [out, rank] = up.shape as [number, number];
  const isPointwise = down.shape[2] === 1 && (stride ?? 1) === 1 && (padding ?? 0) === 0;
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const hidden = isPointwise
    ? ops.matMul(ops.reshape(down, [rank, channels]), ops.reshape(x, [batch, channels, height * width]))
    : ops.conv(x, down, undefined, { stride, padding });
  const [outHeight, outWidth] = isPointwise ? [height, width] : [hidden.shape[2]!, hidden.shape[3]!];
  const rows = isPointwise ? hidden : ops.reshape(hidden, [batch, rank, outHeight * outWidth]);
  return ops.reshape(ops.matMul(ops.reshape(up, [out, rank]), rows), [batch, out, outHeight, outWidth]);
}

/** A rank or alpha of a layer that is not adapted would be left out without a word. */
function checkPatterns({ rankPattern, alphaPattern }: LoRAConfig, layers: readonly TargetLayer[]): void {
  const paths = new Set(layers.map(({ path }) => path));
  for (const [option, pattern] of Object.entries({ rankPattern, alphaPattern })) {
    const odd = Object.keys(pattern).find((path) => !paths.has(path));
    if (odd === undefined) continue;
    throw new ConfigError(
      `LoRA: ${option} names "${odd}", which is none of the adapted layers; write whole paths, such as "${layers[0]!.path}".`,
    );
  }
}
