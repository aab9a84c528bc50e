// What LoRA and its relatives share: y = W x + s · Δ x beside each adapted layer, with Δ made of small trained tensors.

import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import type { AdaptableLayer } from "../nn/index.js";
import type { Generator } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";
import type { Adapter, AttachedAdapter, AttachInputs, WeightFusion } from "./adapter.js";
import type { LowRankConfig } from "./low-rank-config.js";
import type { TargetLayer } from "./target-layers.js";

/** The trained tensors of one layer, by the end of their names, such as `lora_A.weight`. */
export type LayerTensors<T> = ReadonlyMap<string, T>;

/** What a layer's product may look at beside the layer and its input. */
export interface ProductContext {
  /** Of the layer. */
  tensors: LayerTensors<Value>;
  /** As {@link AttachInputs}. */
  timesteps?: Value | undefined;
}

/**
 * A kind whose change of a layer is one product, scaled by the configuration's alpha / rank.
 *
 * Trained tensors: `PATH.END`, END being one of the kind's names of tensors.
 */
export abstract class LowRankAdapter<Config extends LowRankConfig> implements Adapter<Config> {
  readonly lossNames: readonly string[] = [];
  readonly isLinearInScale = true;
  readonly shapes: ReadonlyMap<string, readonly number[]>;

  /** @param layers - The layers that are adapted, each with its tensors' shapes by the end of their names. */
  constructor(
    readonly config: Config,
    private readonly layerShapes: ReadonlyMap<TargetLayer, LayerTensors<readonly number[]>>,
  ) {
    this.shapes = new Map(
      [...layerShapes].flatMap(([{ path }, shapes]) =>
        [...shapes].map(([end, shape]): [string, readonly number[]] => [`${path}.${end}`, shape]),
      ),
    );
  }

  get layers(): readonly TargetLayer[] {
    return [...this.layerShapes.keys()];
  }

  /** Shapes of a layer's tensors by the end of their names. */
  protected shapesOf(layer: TargetLayer): LayerTensors<readonly number[]> {
    return this.layerShapes.get(layer)!;
  }

  /** Δ x, unscaled. @param x - `[B, ..., in]`, or `[B, in, H, W]` of a convolution. */
  protected abstract product(layer: AdaptableLayer, x: Value, context: ProductContext): Value;

  /** A fresh tensor, such that Δ is 0. @param end - Of its name. */
  protected abstract fresh(end: string, shape: readonly number[], generator: Generator): Tensor<"float32">;

  /** Δ itself, `[out, in·k·k]`, unscaled; undefined where it depends on the input. */
  protected abstract delta(tensors: LayerTensors<Value>): Value | undefined;

  abstract withLayersOf(state: ReadonlyMap<string, Tensor>, source: string): LowRankAdapter<Config>;

  initialize(generator: Generator): Map<string, Tensor<"float32">> {
    return new Map(
      [...this.layerShapes].flatMap(([{ path }, shapes]) =>
        [...shapes].map(([end, shape]): [string, Tensor<"float32">] => [
          `${path}.${end}`,
          this.fresh(end, shape, generator),
        ]),
      ),
    );
  }

  attach(_graph: Graph, parameters: ReadonlyMap<string, Value>, inputs: AttachInputs): AttachedAdapter {
    const { config } = this;
    const dropout = (inputs.training ?? false) && config.dropout > 0;
    const masks = new Map<string, readonly number[]>();
    const byPath = new Map([...this.layerShapes].map(([layer, shapes]) => [layer.path, shapes]));
    const apply = (layer: AdaptableLayer, x: Value, y: Value): Value => {
      const shapes = byPath.get(layer.path);
      if (!shapes) return y;
      const tensors = tensorsOf(layer.path, shapes, parameters);
      const dropped = dropout ? dropInputs(layer, x, masks) : x;
      const added = this.product(layer, dropped, { tensors, timesteps: inputs.timesteps });
      const scale = config.scaleOf(layer.path);
      const scaled = scale === 1 ? added : ops.mul(added, scale);
      return ops.add(y, inputs.scale ? ops.mul(scaled, inputs.scale) : scaled);
    };
    return { layers: { apply }, masks, reports: {} };
  }

  toStateDict(values: ReadonlyMap<string, Float32Array>): Map<string, Tensor<"float32">> {
    return this.copied((name) => values.get(name)!);
  }

  fromStateDict(state: ReadonlyMap<string, Tensor<"float32">>): Map<string, Tensor<"float32">> {
    return this.copied((name) => state.get(name)!.data);
  }

  /** W + scale · s · Δ. */
  protected fusedWeight({ path, current, parameters, scale }: WeightFusion): Value {
    const shapes = [...this.layerShapes].find(([layer]) => layer.path === path)![1];
    const delta = this.delta(tensorsOf(path, shapes, parameters))!;
    return ops.add(current, ops.mul(ops.reshape(delta, current.shape), scale * this.config.scaleOf(path)));
  }

  private copied(of: (name: string) => Float32Array): Map<string, Tensor<"float32">> {
    return new Map([...this.shapes].map(([name, shape]) => [name, new Tensor("float32", shape, of(name).slice())]));
  }
}

function tensorsOf(
  path: string,
  shapes: LayerTensors<readonly number[]>,
  parameters: ReadonlyMap<string, Value>,
): Map<string, Value> {
  return new Map([...shapes.keys()].map((end) => [end, parameters.get(`${path}.${end}`)!]));
}

/** A layer's input with some of its values set to 0, by a mask that the run is fed, as `PATH.dropout`. */
export function dropInputs({ path }: AdaptableLayer, x: Value, masks: Map<string, readonly number[]>): Value {
  const name = `${path}.dropout`;
  masks.set(name, x.shape);
  return ops.mul(x, x.graph.input(name, "float32", x.shape));
}

/**
 * B A x; of a convolution B · conv(x, A), whose second convolution is 1×1, a matrix product over channels.
 *
 * @param down - A, `[r, in]` or `[r, in, k, k]`.
 * @param up - B, `[out, r]` or `[out, r, 1, 1]`; `[out, n·r]` where gates are n to a row of A.
 * @param gates - `[B, n·r]`: factors on A x for each sample, n = 1 for a gate to each row of A; otherwise all rows of A
 *   are taken n times, each time with other gates.
 */
export function lowRankProduct(
  layer: Pick<AdaptableLayer, "kind" | "stride" | "padding">,
  x: Value,
  down: Value,
  up: Value,
  gates?: Value,
): Value {
  if (layer.kind === "linear") {
    const hidden = ops.linear(x, down);
    const inner = hidden.shape.slice(1, -1);
    return ops.linear(gates ? gatedRows(hidden, gates, { before: inner, after: [] }) : hidden, up);
  }
  const { stride, padding } = layer;
  const [rank, channels] = down.shape as [number, number];
  const [out, width] = up.shape as [number, number];
  const isPointwise = down.shape[2] === 1 && (stride ?? 1) === 1 && (padding ?? 0) === 0;
  const [batch, , height, length] = x.shape as [number, number, number, number];
  const hidden = isPointwise
    ? ops.matMul(ops.reshape(down, [rank, channels]), ops.reshape(x, [batch, channels, height * length]))
    : ops.conv(x, down, undefined, { stride, padding });
  const [outHeight, outLength] = isPointwise ? [height, length] : [hidden.shape[2]!, hidden.shape[3]!];
  const pixels = outHeight * outLength;
  const rows = isPointwise ? hidden : ops.reshape(hidden, [batch, rank, pixels]);
  const gated = gates ? gatedRows(rows, gates, { before: [], after: [pixels] }) : rows;
  return ops.reshape(ops.matMul(ops.reshape(up, [out, width]), gated), [batch, out, outHeight, outLength]);
}

/** A x with its gates: the axis of r becomes n·r. @param axes - Sizes between the batch and r, and behind r. */
function gatedRows(
  hidden: Value,
  gates: Value,
  { before, after }: { before: readonly number[]; after: readonly number[] },
): Value {
  const [batch, width] = gates.shape as [number, number];
  const ones = (axes: readonly number[]) => axes.map(() => 1);
  const rank = hidden.size / [batch, ...before, ...after].reduce((product, size) => product * size, 1);
  if (width === rank) return ops.mul(hidden, ops.reshape(gates, [batch, ...ones(before), width, ...ones(after)]));
  const repeated = ops.mul(
    ops.reshape(hidden, [batch, ...before, 1, rank, ...after]),
    ops.reshape(gates, [batch, ...ones(before), width / rank, rank, ...ones(after)]),
  );
  return ops.reshape(repeated, [batch, ...before, width, ...after]);
}

/**
 * The tensors of a state dict by layer and by the end of their names.
 *
 * @param ends - Those that the kind has.
 * @returns By path; undefined for a name that is none of the kind's.
 */
export function byLayer(
  state: ReadonlyMap<string, Tensor>,
  ends: readonly string[],
): { layers: Map<string, Map<string, Tensor>>; odd: string | undefined } {
  const layers = new Map<string, Map<string, Tensor>>();
  let odd: string | undefined;
  for (const [name, value] of state) {
    const end = ends.find((each) => name.endsWith(`.${each}`) && name.length > each.length + 1);
    if (end === undefined) {
      odd ??= name;
      continue;
    }
    const path = name.slice(0, -end.length - 1);
    const own = layers.get(path) ?? new Map<string, Tensor>();
    layers.set(path, own.set(end, value));
  }
  return { layers, odd };
}
