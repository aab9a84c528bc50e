// The layers of a model that adapters can change, and which of them a configuration means.

import type { Denoiser } from "../diffusion/index.js";
import { ConfigError, FormatError, quoted } from "../errors.js";
import { Graph } from "../graph/index.js";
import type { AdaptableLayer, LayerAdapters } from "../nn/index.js";
import { matchesPattern, nearNames, type PatternValues, pathPattern } from "./layer-pattern.js";

/** A linear layer, y = x Wᵀ + b with W `[outFeatures, inFeatures]`, or a convolution with `[out, in, kernel, kernel]`. */
export interface TargetLayer {
  /** Module path, e.g. `mid_block.attentions.0.transformer_blocks.0.attn1.to_q`. */
  path: string;
  kind: AdaptableLayer["kind"];
  /** Channels of a convolution. */
  inFeatures: number;
  outFeatures: number;
  /** Side of a convolution's kernel; 1 for a linear layer. */
  kernelSize: number;
}

/**
 * How a target names a layer.
 *
 * - `path`: it is the module path, or the end of it at a dot (`to_out.0` matches).
 * - `name`: it is the last component of the path (`to_out.0` never matches, as in FeRA's reference implementation).
 */
export type LayerMatching = "path" | "name";

/**
 * Every linear layer and convolution that a model evaluates, in that order. Nothing is run.
 *
 * @param build - Builds the model in a graph, with the given adapters on its layers.
 */
export function recordLayers(build: (graph: Graph, adapters: LayerAdapters) => void): TargetLayer[] {
  const found = new Map<string, TargetLayer>();
  const recorder: LayerAdapters = {
    apply({ path, kind, weight }, _x, y) {
      const [outFeatures, inFeatures, kernelSize = 1] = weight.shape as [number, number, number?];
      found.set(path, { path, kind, inFeatures, outFeatures, kernelSize });
      return y;
    },
  };
  build(new Graph(), recorder);
  return [...found.values()];
}

/** All layers of a denoiser that adapters can change. */
export const targetLayers = (denoiser: Denoiser): TargetLayer[] =>
  recordLayers((graph, adapters) => {
    denoiser.build(denoiser.frozenScope(graph, adapters), denoiser.declareInputs(graph, denoiser.smallestShape));
  });

/** Whether a target names the layer at `path`. */
export function matchesTarget(path: string, target: string, matching: LayerMatching): boolean {
  if (matching === "name") return path.slice(path.lastIndexOf(".") + 1) === target;
  return path === target || path.endsWith(`.${target}`);
}

/** Which layers are adapted, under PEFT's names. */
export interface LayerChoice {
  /**
   * A list of names, see {@link LayerMatching}; or one text: a regular expression that is the whole path, or
   * `ALL_LINEAR`.
   */
  readonly targetModules: readonly string[] | string;
  /** Of these, which are left as they are; a list or a pattern as above. None by default. */
  readonly excludeModules?: readonly string[] | string;
  readonly matching: LayerMatching;
}

/** Every linear layer. */
export const ALL_LINEAR = "all-linear";

/**
 * The layers that a configuration means.
 *
 * @throws {ConfigError} If none is left; or if a name or a pattern means no layer (matching by name, a list must mean one
 *   at least). Names that look alike are listed.
 */
export function selectLayers(layers: readonly TargetLayer[], choice: LayerChoice): TargetLayer[] {
  const { targetModules, excludeModules = [], matching } = choice;
  const isTarget = layerTest("targetModules", targetModules, layers, matching);
  const isExcluded =
    excludeModules.length > 0 ? layerTest("excludeModules", excludeModules, layers, "path") : () => false;
  const chosen = layers.filter((layer) => isTarget(layer) && !isExcluded(layer));
  if (chosen.length > 0) return chosen;
  throw new ConfigError("excludeModules: leaves no layer of those that targetModules names.");
}

/** A text that says which layers are adapted, for people. */
export const describeTargets = (targets: readonly string[] | string): string =>
  typeof targets === "string" ? targets : targets.join(", ");

function layerTest(
  option: string,
  targets: readonly string[] | string,
  layers: readonly TargetLayer[],
  matching: LayerMatching,
): (layer: TargetLayer) => boolean {
  if (targets === ALL_LINEAR || (targets.length === 1 && targets[0] === ALL_LINEAR)) {
    return ({ kind }) => kind === "linear";
  }
  if (typeof targets === "string") {
    const matches = pathPattern(targets, option);
    if (layers.some(({ path }) => matches(path))) return ({ path }) => matches(path);
    const near = nearNames(
      targets,
      layers.map(({ path }) => path),
    );
    throw new ConfigError(
      `${option}: the pattern ${quoted(targets)} is the path of no layer of this model; ` +
        `paths like it are ${near.join(", ")}.`,
    );
  }
  const missing = targets.filter((target) => !layers.some(({ path }) => matchesTarget(path, target, matching)));
  if (missing.length > 0 && (matching === "path" || missing.length === targets.length)) {
    const kind = layers.every((layer) => layer.kind === "linear") ? "linear layer" : "layer";
    const near = nearNames(
      missing[0]!,
      layers.map(({ path }) => pathSuffix(path)),
    );
    throw new ConfigError(
      `${option}: ${quoted(missing[0])} names no ${kind} of this model (matching by ${matching}); ` +
        `layers are named like ${near.join(", ")}.`,
    );
  }
  return ({ path }) => targets.some((target) => matchesTarget(path, target, matching));
}

/**
 * Checks that values by pattern are for layers that are adapted: others would be left out without a word.
 *
 * @throws {ConfigError} That names the option and the pattern, and lists paths that look alike.
 */
export function checkPatterns(options: Readonly<Record<string, PatternValues>>, layers: readonly TargetLayer[]): void {
  const paths = new Set(layers.map(({ path }) => path));
  for (const [option, values] of Object.entries(options)) {
    for (const pattern of Object.keys(values)) {
      if (paths.has(pattern) || layers.some(({ path }) => matchesPattern(path, pattern, option))) continue;
      const near = nearNames(pattern, [...paths, ...[...paths].map(pathSuffix)]);
      throw new ConfigError(
        `${option}: ${quoted(pattern)} names none of the adapted layers; they are named like ${near.join(", ")}.`,
      );
    }
  }
}

/** The shortest end of a path that starts with a name and not with an index: `to_q`, `to_out.0`, `net.0.proj`. */
export function pathSuffix(path: string): string {
  const parts = path.split(".");
  let start = parts.length - 1;
  while (start > 0 && /^\d+$/.test(parts[start]!)) start--;
  return parts.slice(start).join(".");
}

/**
 * The largest rank that a matrix of these layers can have.
 *
 * @throws {ConfigError} If the rank is larger: what is beyond adds nothing.
 */
export function checkRank(where: string, rank: number, layers: readonly TargetLayer[]): void {
  const sizes = layers.map(({ inFeatures, outFeatures, kernelSize: k }) => Math.min(inFeatures * k * k, outFeatures));
  const largest = Math.max(...sizes);
  if (rank <= largest) return;
  throw new ConfigError(
    `${where}: rank must be ${largest} or less, the largest that a matrix of these layers has; got ${rank}.`,
  );
}

/**
 * Checks that a model has the layers that an adapter names.
 *
 * @throws {FormatError} If layers are missing or have other sizes; the message names the first and counts the rest.
 */
export function checkLayers(wanted: readonly TargetLayer[], model: readonly TargetLayer[], source: string): void {
  const known = new Map(model.map((layer) => [layer.path, layer]));
  const size = ({ inFeatures, outFeatures, kernelSize: k }: TargetLayer): string =>
    `${inFeatures}→${outFeatures}${k > 1 ? ` of ${k}×${k}` : ""}`;
  const problems = wanted.flatMap((layer) => {
    const own = known.get(layer.path);
    if (!own) return [`the layer "${layer.path}" does not exist in the model`];
    if (size(layer) === size(own)) return [];
    return [`the layer "${layer.path}" is ${size(layer)} in the adapter and ${size(own)} in the model`];
  });
  if (problems.length === 0) return;
  const rest = problems.length > 1 ? `, and ${problems.length - 1} more of its ${wanted.length} layers do not fit` : "";
  throw new FormatError(source, `is an adapter for another model: ${problems[0]}${rest}.`);
}
