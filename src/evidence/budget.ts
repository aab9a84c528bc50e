// Ranks that give each kind of adapter the same number of trained parameters.

import {
  type AdapterConfig,
  ALL_LINEAR,
  createAdapter,
  LoRAConfig,
  matchesTarget,
  type TargetLayer,
} from "../adapters/index.js";
import { ADAPTED_LAYERS } from "../demo/index.js";
import { ConfigError } from "../errors.js";
import { sizeOf } from "../tensor/tensor.js";

/** The rank that all experts of a layer have together, and a LoRA of the same size. */
export const TOTAL_RANK = 24;

/** How far from the budget a method may be. */
export const TOLERANCE = 0.02;

/** How many parameters a method may train, and on which layers. */
export interface Budget {
  /** All that a model has. */
  layers: readonly TargetLayer[];
  targetModules: readonly string[] | string;
  /** Of a LoRA of {@link TOTAL_RANK} on these. */
  parameters: number;
}

/** The budget of a model. @param layers - As `targetLayers` gives them. */
export function budgetOf(layers: readonly TargetLayer[]): Budget {
  const named = ADAPTED_LAYERS.filter((target) => layers.some(({ path }) => matchesTarget(path, target, "path")));
  const targetModules = named.length > 0 ? named : ALL_LINEAR;
  const rank = Math.min(TOTAL_RANK, largestRank(layers));
  return { layers, targetModules, parameters: parametersOf(new LoRAConfig({ rank, targetModules }), layers) };
}

/** The largest rank that any layer can have. */
export function largestRank(layers: readonly TargetLayer[]): number {
  return Math.max(
    ...layers.map(({ inFeatures, outFeatures, kernelSize: k }) => Math.min(inFeatures * k * k, outFeatures)),
  );
}

/** Trained values of an adapter of that configuration. @throws {ConfigError} If its rank is larger than any layer's. */
export function parametersOf(config: AdapterConfig, layers: readonly TargetLayer[]): number {
  return [...createAdapter(config, layers).shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0);
}

/** How a rank is divided over layers: some may have one more, at the same scale alpha / rank. */
export interface FittedRank {
  rank: number;
  alpha: number;
  rankPattern: Record<string, number>;
  alphaPattern: Record<string, number>;
}

/**
 * The configuration that is nearest to the budget from below: the largest rank that fits, and one more on as many layers,
 * spread evenly, as fit too.
 *
 * @param scale - alpha / rank.
 */
export function fitted<Config extends AdapterConfig>(
  { layers, parameters }: Budget,
  scale: number,
  make: (rank: FittedRank) => Config,
): Config {
  const withMore = (rank: number, paths: readonly string[]): Config =>
    make({
      ...{ rank, alpha: scale * rank },
      rankPattern: Object.fromEntries(paths.map((path) => [path, rank + 1])),
      alphaPattern: Object.fromEntries(paths.map((path) => [path, scale * (rank + 1)])),
    });
  const fits = (config: Config): boolean => countOf(config, layers) <= parameters;
  const rank = largest((candidate) => fits(withMore(candidate, [])), largestRank(layers));
  const paths = spreadPaths(withMore(rank, []), layers);
  const most = largest((count) => fits(withMore(rank, paths.slice(0, count - 1))), paths.length) - 1;
  return withMore(rank, paths.slice(0, most));
}

/**
 * The configuration whose one rank for all layers comes nearest to the budget. Where that is off by more than
 * {@link TOLERANCE}, the next higher rank, on all layers but a few, spread evenly, that are left as they are.
 *
 * @param make - Of a rank, and paths that are left out.
 */
export function nearest<Config extends AdapterConfig>(
  { layers, parameters }: Budget,
  make: (rank: number, excluded: readonly string[]) => Config,
): Config {
  const below = largest((rank) => countOf(make(rank, []), layers) <= parameters, largestRank(layers));
  const distance = (config: Config) => Math.abs(countOf(config, layers) - parameters);
  const [lower, higher] = [make(below, []), make(below + 1, [])];
  const best = distance(higher) < distance(lower) ? higher : lower;
  if (distance(best) <= TOLERANCE * parameters || !Number.isFinite(countOf(higher, layers))) return best;
  const paths = spreadPaths(lower, layers);
  for (let count = 1; count < paths.length / 4; count++) {
    const config = make(below + 1, paths.slice(0, count));
    if (countOf(config, layers) <= parameters * (1 + TOLERANCE))
      return distance(config) < distance(best) ? config : best;
  }
  return best;
}

/** Paths of the layers that a configuration adapts, in an order of which any beginning is spread evenly over them. */
function spreadPaths(config: AdapterConfig, layers: readonly TargetLayer[]): string[] {
  const golden = (Math.sqrt(5) - 1) / 2;
  return createAdapter(config, layers)
    .layers.map(({ path }, i) => ({ path, place: (i * golden) % 1 }))
    .sort((a, b) => a.place - b.place)
    .map(({ path }) => path);
}

/** More than any budget where the rank is larger than a layer allows. */
function countOf(config: AdapterConfig, layers: readonly TargetLayer[]): number {
  try {
    return parametersOf(config, layers);
  } catch (error) {
    if (error instanceof ConfigError) return Number.POSITIVE_INFINITY;
    throw error;
  }
}

/** The largest of 1 … most that fits; 1 where none does. What fits must fit for all smaller ones. */
function largest(fits: (candidate: number) => boolean, most: number): number {
  let [low, high] = [1, most];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}
