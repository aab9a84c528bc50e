// A LoRA's layers between diffusers' paths and the original code of flow transformers, which has several of diffusers' layers
// in one: fused on writing, split on reading. What the layers are called is in storage/flow-names.ts.

import { ConfigError, FormatError } from "../../errors.js";
import { type FlowFamily, FlowNames, type OriginalModule } from "../../storage/flow-names.js";
import { Tensor } from "../../tensor/tensor.js";
import type { TargetLayer } from "../target-layers.js";
import type { FileLayer } from "./file-layer.js";

/** A layer that only this family has, by a path that all its models have. */
const SIGNS: readonly (readonly [sign: string, family: FlowFamily])[] = [
  ["pos_embed.proj", "SD3Transformer2DModel"],
  ["double_stream_modulation_img.linear", "Flux2Transformer2DModel"],
  ["time_text_embed.text_embedder.linear_1", "FluxTransformer2DModel"],
  ["all_x_embedder.2-1", "ZImageTransformer2DModel"],
];

/** The family of a model by all of its layers; undefined for UNets and others. An adapter's layers alone do not tell. */
export function flowFamilyOf(model: readonly TargetLayer[]): FlowFamily | undefined {
  const paths = new Set(model.map(({ path }) => path));
  return SIGNS.find(([sign]) => paths.has(sign))?.[1];
}

const flat = (name: string): string => name.replaceAll(".", "_");

/** Finds the original code's module by its name with dots or underscores, where the model has it under another name. */
export function originalFlowModules(model: readonly TargetLayer[]): (name: string) => OriginalModule | undefined {
  const family = flowFamilyOf(model);
  const modules = new Map<string, OriginalModule>();
  if (family === undefined) return () => undefined;
  const names = new FlowNames(family);
  for (const { path } of model) {
    const module = names.byPart(path);
    if (module) modules.set(flat(module.original), module);
  }
  // diffusers' own names go first where both have one.
  for (const { path } of model) modules.delete(flat(path));
  return (name) => modules.get(flat(name));
}

/**
 * A file's layers under diffusers' paths, where they have the original code's names: a fused one as its parts, each with the
 * same down matrix and its own rows of up. Others are left as they are.
 *
 * Where the fused matrices are those of parts beside each other (each row of up is zero but for its part's columns), the parts
 * get their own columns alone, and a part without any is left out: its change is nothing.
 *
 * @param useRslora - Alpha is over √rank.
 * @throws {FormatError} If up has not as many rows as the model's layers.
 */
export function splitFlowLayers(
  layers: readonly FileLayer[],
  model: readonly TargetLayer[],
  source: string,
  useRslora = false,
): FileLayer[] {
  const find = originalFlowModules(model);
  const known = new Map(model.map((layer) => [layer.path, layer]));
  return layers.flatMap((layer) => {
    const module = find(layer.name);
    return module ? splitLayer(layer, module, known, source, useRslora) : [layer];
  });
}

function splitLayer(
  layer: FileLayer,
  module: OriginalModule,
  known: ReadonlyMap<string, TargetLayer>,
  source: string,
  useRslora: boolean,
): FileLayer[] {
  const { name, alpha, magnitude } = layer;
  const up = isSwapped(module, layer.up.shape[0]!, layer.down.shape[1]!) ? swappedHalves(layer.up) : layer.up;
  const values =
    magnitude && up !== layer.up && magnitude.axis === "output" ? swappedHalves(magnitude.values) : magnitude?.values;
  const turned = { ...layer, up, magnitude: magnitude && { ...magnitude, values: values! } };
  if (module.parts.length === 1) return [{ ...turned, name: module.parts[0]! }];

  const sizes = module.parts.map((path) => known.get(path)?.outFeatures ?? Number.NaN);
  const rows = up.shape[0]!;
  if (rows !== sizes.reduce((sum, size) => sum + size, 0)) {
    throw new FormatError(
      source,
      `"${name}" must have the rows of ${module.parts.join(", ")}, ${sizes.join(" + ")}, in its up matrix; it has ${rows}.`,
    );
  }
  let first = 0;
  const parts = module.parts.map((path, i): FileLayer => {
    const from = first;
    first += sizes[i]!;
    const to = first;
    const own =
      magnitude?.axis === "output"
        ? { axis: magnitude.axis, values: rowsOf(magnitude.values, from, to) }
        : magnitude && { ...magnitude, values: rowsOf(magnitude.values, 0, magnitude.values.shape[0]!) };
    return {
      name: path,
      alpha,
      magnitude: own,
      up: rowsOf(up, from, to),
      down: rowsOf(layer.down, 0, layer.down.shape[0]!),
    };
  });
  return magnitude ? parts : withOwnColumns(parts, useRslora);
}

/** The parts with the columns of up that are theirs alone; the parts as they are where two share one. */
function withOwnColumns(parts: readonly FileLayer[], useRslora: boolean): FileLayer[] {
  const rank = parts[0]!.down.shape[0]!;
  const used = parts.map(({ up }) =>
    Array.from({ length: rank }, (_, column) => up.data.some((value, i) => i % rank === column && value !== 0)),
  );
  const columns = Array.from({ length: rank }, (_, column) => used.filter((own) => own[column]).length);
  // Unused columns can be anybody's: then all is as new, with up all zero.
  if (columns.some((count) => count !== 1)) return [...parts];
  return parts.flatMap((part, i) => {
    const own = used[i]!.flatMap((is, column) => (is ? [column] : []));
    if (own.length === 0) return [];
    const [outFeatures = 0] = part.up.shape;
    const up = Float32Array.from({ length: outFeatures * own.length }, (_, at) => {
      return part.up.data[Math.floor(at / own.length) * rank + own[at % own.length]!]!;
    });
    const inFeatures = part.down.shape[1]!;
    const down = new Float32Array(own.length * inFeatures);
    own.forEach((row, k) => {
      down.set(part.down.data.subarray(row * inFeatures, (row + 1) * inFeatures), k * inFeatures);
    });
    const share = own.length / rank;
    return [
      {
        ...part,
        down: new Tensor("float32", [own.length, inFeatures], down),
        up: new Tensor("float32", [outFeatures, own.length], up),
        alpha: part.alpha * (useRslora ? Math.sqrt(share) : share),
      },
    ];
  });
}

/**
 * An adapter's layers under the original code's names. Parts of one layer get one product: down matrices one below the other,
 * up matrices in blocks, so that its rank is the sum of theirs. Z-Image's keep diffusers' names.
 *
 * @param layers - By diffusers' paths.
 * @param model - All layers of the model: an adapter's paths alone do not tell the family.
 * @throws {ConfigError} If the family is not known; or if a layer that is one with others has magnitudes per input, or the
 *   others have none.
 */
export function fuseFlowLayers(layers: readonly FileLayer[], model: readonly TargetLayer[]): FileLayer[] {
  const family = flowFamilyOf(model);
  if (!family) {
    throw new ConfigError(
      "the original code's names of a transformer's layers need its model, of Stable Diffusion 3, FLUX.1, FLUX.2 or Z-Image: " +
        "the adapter's layers alone do not tell which it is.",
    );
  }
  // The programs that train Z-Image, and ComfyUI, have diffusers' names for its layers; the original code's are read only.
  if (family === "ZImageTransformer2DModel") return [...layers];
  const names = new FlowNames(family);
  const sizes = new Map(model.map(({ path, outFeatures }) => [path, outFeatures]));
  const groups = new Map<string, { module: OriginalModule; own: Map<string, FileLayer> }>();
  for (const layer of layers) {
    const module = names.byPart(layer.name) ?? { original: layer.name, parts: [layer.name], shares: [1] };
    const group = groups.get(module.original) ?? { module, own: new Map() };
    groups.set(module.original, group);
    group.own.set(layer.name, layer);
  }
  return [...groups.values()].map(({ module, own }) => fusedLayer(module, own, sizes));
}

function fusedLayer(
  module: OriginalModule,
  own: ReadonlyMap<string, FileLayer>,
  sizes: ReadonlyMap<string, number>,
): FileLayer {
  const name = module.original;
  const [first] = own.values() as unknown as [FileLayer];
  if (module.parts.length === 1) {
    if (!isSwapped(module, first.up.shape[0]!, first.down.shape[1]!)) return { ...first, name };
    const { magnitude } = first;
    const turned = magnitude?.axis === "output" ? { ...magnitude, values: swappedHalves(magnitude.values) } : magnitude;
    return { ...first, name, up: swappedHalves(first.up), magnitude: turned };
  }
  const parts = module.parts.map((path) => ({ rows: sizes.get(path)!, layer: own.get(path) }));
  const magnitudes = parts.map(({ layer }) => layer?.magnitude);
  const hasMagnitude = magnitudes.some((magnitude) => magnitude !== undefined);
  if (hasMagnitude && !magnitudes.every((magnitude) => magnitude?.axis === "output")) {
    throw new ConfigError(
      `${[...own.keys()].join(", ")}: the original code has ${module.parts.join(", ")} as one layer, "${name}", whose ` +
        "magnitudes DoRA can only have where all of these are adapted, each with magnitudes per output. Write it in " +
        "diffusers' names instead.",
    );
  }
  const rank = [...own.values()].reduce((sum, { down }) => sum + down.shape[0]!, 0);
  const scales = [...own.values()].map(({ alpha, down }) => alpha / down.shape[0]!);
  // One alpha for all: where their scales differ, these go into up.
  const common = scales.every((scale) => scale === scales[0]) ? scales[0]! : undefined;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const inFeatures = first.down.shape[1]!;
  const down = new Float32Array(rank * inFeatures);
  const up = new Float32Array(rows * rank);
  let [row, column] = [0, 0];
  for (const part of parts) {
    if (part.layer) {
      const { down: ownDown, up: ownUp, alpha } = part.layer;
      const ownRank = ownDown.shape[0]!;
      const factor = common === undefined ? alpha / ownRank : 1;
      down.set(ownDown.data, column * inFeatures);
      for (let i = 0; i < part.rows; i++) {
        for (let k = 0; k < ownRank; k++) up[(row + i) * rank + column + k] = ownUp.data[i * ownRank + k]! * factor;
      }
      column += ownRank;
    }
    row += part.rows;
  }
  const values = magnitudes.flatMap((magnitude) => (magnitude ? [...magnitude.values.data] : []));
  return {
    name,
    down: new Tensor("float32", [rank, inFeatures], down),
    up: new Tensor("float32", [rows, rank], up),
    alpha: (common ?? 1) * rank,
    magnitude: hasMagnitude
      ? { axis: "output", values: new Tensor("float32", [rows], Float32Array.from(values)) }
      : undefined,
  };
}

/** Whether scale and shift, two times as many rows as the layer has inputs, stand in the other order. */
const isSwapped = ({ swapped }: OriginalModule, rows: number, columns: number): boolean =>
  swapped !== undefined && rows === 2 * columns;

function rowsOf({ shape, data }: Tensor<"float32">, from: number, to: number): Tensor<"float32"> {
  const size = data.length / shape[0]!;
  return new Tensor("float32", [to - from, ...shape.slice(1)], data.slice(from * size, to * size));
}

function swappedHalves({ shape, data }: Tensor<"float32">): Tensor<"float32"> {
  const values = new Float32Array(data.length);
  values.set(data.subarray(data.length / 2));
  values.set(data.subarray(0, data.length / 2), data.length / 2);
  return new Tensor("float32", shape, values);
}
