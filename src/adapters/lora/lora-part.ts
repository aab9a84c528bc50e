// A LoRA's layers as a file has them, and as an adapter's part: its configuration, its tensors, its layers.

import { FormatError } from "../../errors.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import type { AdapterPart } from "../loaded-adapter.js";
import { checkLayers, matchesTarget, pathSuffix, type TargetLayer } from "../target-layers.js";
import type { FileLayer } from "./file-layer.js";
import type { LayerFinder } from "./layer-names.js";
import { LoRAConfig } from "./lora-config.js";

/** What a configuration says beside ranks, alphas and layers. */
export interface LoRASettings {
  dropout?: number;
  useRslora?: boolean;
  /** The whole configuration as it was written beside the tensors; it holds where it agrees with them. */
  written?: LoRAConfig;
}

/** The part under the file's own names. */
export function loraPart(layers: readonly FileLayer[], settings: LoRASettings): AdapterPart<LoRAConfig> {
  return partOf(
    layers,
    layers.map(({ name }) => name),
    settings,
  );
}

/**
 * The part under a model's paths. Matrices of 1×1 convolutions and of linear layers are the same but for their shape.
 *
 * @param find - Gives the path of a file's name.
 * @param what - Names the model's component in messages.
 * @throws {FormatError} If a layer is not found, found twice, or has other sizes in the model.
 */
export function resolveLora(
  layers: readonly FileLayer[],
  settings: LoRASettings,
  find: LayerFinder,
  model: readonly TargetLayer[],
  source: string,
): AdapterPart<LoRAConfig> {
  const known = new Map(model.map((layer) => [layer.path, layer]));
  const found = renamed(layers, find, source).map((layer): FileLayer => {
    const { name, down, up } = layer;
    const own = known.get(name);
    if (!own) return layer;
    const [rank = 0, inFeatures = 0, kernel = 1] = down.shape;
    if (kernel !== 1 || own.kernelSize !== 1) return layer;
    const tail = own.kind === "convolution" ? [1, 1] : [];
    return {
      ...layer,
      down: reshaped(down, [rank, inFeatures, ...tail]),
      up: reshaped(up, [up.shape[0]!, rank, ...tail]),
    };
  });
  const part = partOf(found, shortTargets(found, model), settings);
  checkLayers(part.layers, model, source);
  return part;
}

/**
 * The layers under the paths that their names mean.
 *
 * @throws {FormatError} If one has none, or two have the same.
 */
export function renamed<Layer extends { name: string }>(
  layers: readonly Layer[],
  find: LayerFinder,
  source: string,
): Layer[] {
  const paths = new Map<string, string>();
  const missing: string[] = [];
  const result = layers.flatMap((layer) => {
    const path = find(layer.name);
    if (path === undefined) {
      missing.push(layer.name);
      return [];
    }
    const other = paths.get(path);
    if (other !== undefined) {
      throw new FormatError(source, `its layers "${other}" and "${layer.name}" are the same one, "${path}".`);
    }
    paths.set(path, layer.name);
    return [{ ...layer, name: path }];
  });
  if (missing.length === 0) return result;
  const shown = missing.slice(0, 3).map((name) => `"${name}"`);
  const more = missing.length > shown.length ? ", …" : "";
  throw new FormatError(
    source,
    `is an adapter for another model: ${missing.length} of its ${layers.length} layers do not exist in this one ` +
      `(${shown.join(", ")}${more}).`,
  );
}

function partOf(
  layers: readonly FileLayer[],
  targetModules: readonly string[],
  settings: LoRASettings,
): AdapterPart<LoRAConfig> {
  const state = new Map<string, Tensor<"float32">>();
  for (const { name, down, up, magnitude } of layers) {
    state.set(`${name}.lora_A.weight`, down).set(`${name}.lora_B.weight`, up);
    if (!magnitude) continue;
    const { axis, values } = magnitude;
    const perOutput = down.shape.length === 4 ? [1, values.size, 1, 1] : [values.size];
    const shape = axis === "output" ? perOutput : [1, values.size];
    state.set(`${name}.lora_magnitude_vector`, new Tensor("float32", shape, values.data));
  }
  return { config: configOf(layers, targetModules, settings), state, layers: layers.map(targetOf) };
}

/** The written configuration where it says the same of every layer; otherwise what the tensors say. */
function configOf(
  layers: readonly FileLayer[],
  targetModules: readonly string[],
  { dropout, useRslora = false, written }: LoRASettings,
): LoRAConfig {
  const scale = ({ down: { shape }, alpha }: FileLayer) => alpha / (useRslora ? Math.sqrt(shape[0]!) : shape[0]!);
  const agrees =
    written &&
    layers.every((layer) => {
      const said = written.scaleOf(layer.name);
      return (
        written.rankOf(layer.name) === layer.down.shape[0] && Math.abs(said - scale(layer)) <= 2 ** -22 * Math.abs(said)
      );
    });
  if (agrees) return written;
  const rank = mostFrequent(layers.map(({ down }) => down.shape[0]!)) ?? 1;
  const alpha = mostFrequent(layers.map((layer) => layer.alpha).filter((value) => value > 0)) ?? rank;
  const differing = <T>(of: (layer: FileLayer) => T, usual: T) =>
    Object.fromEntries(layers.filter((layer) => of(layer) !== usual).map((layer) => [layer.name, of(layer)]));
  return new LoRAConfig({
    ...{ rank, alpha, useRslora },
    dropout: dropout ?? written?.dropout,
    targetModules: targetModules.length > 0 ? targetModules : undefined,
    rankPattern: differing(({ down }) => down.shape[0]!, rank),
    alphaPattern: differing((layer) => layer.alpha, alpha),
  });
}

/** Ends of the paths where they mean these layers and no others of the model; otherwise the paths. */
export function shortTargets(layers: readonly { name: string }[], model: readonly TargetLayer[]): string[] {
  const paths = new Set(layers.map(({ name }) => name));
  const suffixes = [...new Set([...paths].map(pathSuffix))];
  const named = model.filter(({ path }) => suffixes.some((suffix) => matchesTarget(path, suffix, "path")));
  return named.every(({ path }) => paths.has(path)) ? suffixes : [...paths];
}

function targetOf({ name, down, up }: FileLayer): TargetLayer {
  const [, inFeatures = 0, kernelSize = 1] = down.shape;
  const kind = down.shape.length === 4 ? "convolution" : "linear";
  return { path: name, kind, inFeatures, outFeatures: up.shape[0] ?? 0, kernelSize };
}

function reshaped(value: Tensor<"float32">, shape: readonly number[]): Tensor<"float32"> {
  return sizeOf(shape) === value.size ? new Tensor("float32", shape, value.data) : value;
}

/** Of equals the one that came first; undefined where there is none. */
export function mostFrequent(values: readonly number[]): number | undefined {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a)[0]?.[0];
}
