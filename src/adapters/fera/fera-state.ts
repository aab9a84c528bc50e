// The names and shapes of FeRA's tensors: the reference's state dict, one tensor per expert, and the stacked tensors that
// are trained, one pair per layer.

import { FormatError } from "../../errors.js";
import { sameShape } from "../../graph/index.js";
import { Tensor, zeros } from "../../tensor/tensor.js";
import type { TargetLayer } from "../target-layers.js";
import type { FeRAConfig } from "./fera-config.js";
import { createRouter, networkShapes } from "./routers/index.js";

/** What shapes an adapter's tensors. */
export interface FeRALayout {
  layers: readonly TargetLayer[];
  rank: number;
  numExperts: number;
  numBands: number;
  /** Whether a layer's experts have one `lora_down` together. */
  sharedDown: boolean;
  /** The router's parameters, without their prefix; none for routers that train nothing. */
  routerShapes: ReadonlyMap<string, readonly number[]>;
}

/** The layout of a configuration on the given layers. */
export function layoutOf(config: FeRAConfig, layers: readonly TargetLayer[]): FeRALayout {
  const { rank, numExperts, numBands, sharedDown } = config;
  return { layers, rank, numExperts, numBands, sharedDown, routerShapes: createRouter(config).shapes };
}

/** Prefix of the router's parameters in both kinds of names. */
export const ROUTER = "router.";
const BASE = "base_model.";
const EXPERT_NAME = /^base_model\.(.+)\.experts\.(\d{1,6})\.lora_(down|up)\.weight$/s;
const SHARED_NAME = /^base_model\.(.+)\.experts\.lora_down\.weight$/s;

/** The reference's name of one matrix of an expert. */
export const expertName = (path: string, expert: number, side: "down" | "up"): string =>
  `${BASE}${path}.experts.${expert}.lora_${side}.weight`;

/** The name of the matrix that a layer's experts share. */
export const sharedDownName = (path: string): string => `${BASE}${path}.experts.lora_down.weight`;

const downShape = ({ kind, inFeatures, kernelSize: k }: TargetLayer, rows: number): readonly number[] =>
  kind === "linear" ? [rows, inFeatures] : [rows, inFeatures, k, k];
const upShape = ({ kind, outFeatures }: TargetLayer, columns: number): readonly number[] =>
  kind === "linear" ? [outFeatures, columns] : [outFeatures, columns, 1, 1];

/** Names and shapes of the reference's state dict, the router first. */
export function stateShapes(layout: FeRALayout): Map<string, readonly number[]> {
  const { layers, rank, numExperts, sharedDown, routerShapes } = layout;
  const shapes = new Map<string, readonly number[]>();
  for (const [name, shape] of routerShapes) shapes.set(ROUTER + name, shape);
  for (const layer of layers) {
    if (sharedDown) shapes.set(sharedDownName(layer.path), downShape(layer, rank));
    for (let expert = 0; expert < numExperts; expert++) {
      if (!sharedDown) shapes.set(expertName(layer.path, expert, "down"), downShape(layer, rank));
      shapes.set(expertName(layer.path, expert, "up"), upShape(layer, rank));
    }
  }
  return shapes;
}

/**
 * Names and shapes of the stacked tensors: the router's, `PATH.down [E·r, in]` (`[r, in]` where it is shared) and
 * `PATH.up [out, E·r]`.
 */
export function stackedShapes(layout: FeRALayout): Map<string, readonly number[]> {
  const { layers, rank, numExperts, sharedDown, routerShapes } = layout;
  const shapes = new Map<string, readonly number[]>();
  for (const [name, shape] of routerShapes) shapes.set(ROUTER + name, shape);
  for (const layer of layers) {
    shapes.set(`${layer.path}.down`, downShape(layer, sharedDown ? rank : numExperts * rank));
    shapes.set(`${layer.path}.up`, upShape(layer, numExperts * rank));
  }
  return shapes;
}

/**
 * Joins a state dict's experts.
 *
 * @param state - Every tensor of {@link stateShapes}.
 */
export function stackState(state: ReadonlyMap<string, Tensor<"float32">>, layout: FeRALayout) {
  const { layers, rank, numExperts, sharedDown } = layout;
  const stacked = new Map<string, Tensor<"float32">>();
  for (const [name, shape] of stackedShapes(layout)) {
    const copied = zeros(shape);
    if (name.startsWith(ROUTER)) copied.data.set(state.get(name)!.data);
    stacked.set(name, copied);
  }
  for (const { path, inFeatures, outFeatures, kernelSize } of layers) {
    const down = stacked.get(`${path}.down`)!.data;
    const up = stacked.get(`${path}.up`)!.data;
    const downLength = rank * inFeatures * kernelSize ** 2;
    if (sharedDown) down.set(state.get(sharedDownName(path))!.data);
    for (let expert = 0; expert < numExperts; expert++) {
      if (!sharedDown) down.set(state.get(expertName(path, expert, "down"))!.data, expert * downLength);
      const columns = state.get(expertName(path, expert, "up"))!.data;
      for (let row = 0; row < outFeatures; row++) {
        up.set(columns.subarray(row * rank, (row + 1) * rank), (row * numExperts + expert) * rank);
      }
    }
  }
  return stacked;
}

/**
 * Splits stacked values (tensors, or their gradients) into a state dict.
 *
 * @param stacked - Flat values under every name of {@link stackedShapes}.
 * @returns Copies.
 */
export function unstackState(
  stacked: ReadonlyMap<string, Float32Array>,
  layout: FeRALayout,
): Map<string, Tensor<"float32">> {
  const { layers, rank, numExperts, sharedDown } = layout;
  const state = new Map<string, Tensor<"float32">>();
  for (const [name, shape] of stateShapes(layout)) {
    const own = name.startsWith(ROUTER) ? stacked.get(name)!.slice() : undefined;
    state.set(name, own ? new Tensor("float32", shape, own) : zeros(shape));
  }
  for (const { path, inFeatures, outFeatures, kernelSize } of layers) {
    const down = stacked.get(`${path}.down`)!;
    const up = stacked.get(`${path}.up`)!;
    const downLength = rank * inFeatures * kernelSize ** 2;
    if (sharedDown) state.get(sharedDownName(path))!.data.set(down);
    for (let expert = 0; expert < numExperts; expert++) {
      const rows = down.subarray(expert * downLength, (expert + 1) * downLength);
      if (!sharedDown) state.get(expertName(path, expert, "down"))!.data.set(rows);
      const columns = state.get(expertName(path, expert, "up"))!.data;
      for (let row = 0; row < outFeatures; row++) {
        const start = (row * numExperts + expert) * rank;
        columns.set(up.subarray(start, start + rank), row * rank);
      }
    }
  }
  return state;
}

/** Whether a state dict is FeRA's, by the names of its experts. */
export const isFeRAState = (state: ReadonlyMap<string, unknown>): boolean =>
  [...state.keys()].some((name) => EXPERT_NAME.test(name) || name.startsWith(`${ROUTER}net.`));

/**
 * Reads layers, rank, experts and bands off a state dict's names and shapes.
 *
 * @param source - The file, for messages.
 * @param config - What came with it; needed where the router trains nothing, and checked against the tensors.
 * @throws {FormatError} If it is not a whole FeRA adapter: no layers, a tensor missing, unexpected or of a shape that
 *   contradicts the others; the message names the first and counts the rest.
 */
export function layoutOfState(state: ReadonlyMap<string, Tensor>, source: string, config?: FeRAConfig): FeRALayout {
  const first = state.get(`${ROUTER}net.0.weight`);
  const last = state.get(`${ROUTER}net.2.weight`);
  const trainsRouter = config === undefined || createRouter(config).shapes.size > 0;
  if (trainsRouter && (first?.shape.length !== 2 || last?.shape.length !== 2)) {
    const names = [...state.keys()].slice(0, 3).join(", ");
    if (!config && !first && !last && [...state.keys()].some((name) => EXPERT_NAME.test(name))) {
      throw new FormatError(
        source,
        "holds experts without a router and without a configuration, so that their gates are not known. " +
          "Save the adapter as a .safetensors file or a folder, which keep the configuration.",
      );
    }
    throw new FormatError(
      source,
      `is no FeRA adapter: it lacks "router.net.0.weight" [64, bands] and "router.net.2.weight" [experts, 64]; ` +
        `it holds ${names || "nothing"}${state.size > 3 ? `, … (${state.size} tensors)` : ""}.`,
    );
  }
  const layers = new Map<string, TargetLayer>();
  let rank: number | undefined;
  let sharedDown = false;
  for (const [name, { shape }] of state) {
    const shared = SHARED_NAME.exec(name);
    const match = EXPERT_NAME.exec(name) ?? shared;
    if (!match) continue;
    sharedDown ||= shared !== null;
    const path = match[1]!;
    const layer = layers.get(path) ?? { path, kind: "linear", inFeatures: 0, outFeatures: 0, kernelSize: 1 };
    layers.set(path, layer);
    if (shape.length === 4) layer.kind = "convolution";
    if (shared || match[3] === "down") {
      rank ??= shape[0];
      layer.inFeatures = shape[1] ?? 0;
      layer.kernelSize = shape[2] ?? 1;
    } else layer.outFeatures = shape[0] ?? 0;
  }
  if (layers.size === 0 || !rank || first?.size === 0 || last?.size === 0) {
    throw new FormatError(
      source,
      'holds no experts; their tensors are named "base_model.LAYER.experts.0.lora_down.weight".',
    );
  }
  const numExperts = last?.shape[0] ?? config!.numExperts;
  const numBands = first?.shape[1] ?? config!.numBands;
  if (config) checkAgainst(config, { rank, numExperts, numBands, sharedDown }, source);
  const layout: FeRALayout = {
    ...{ rank, numExperts, numBands, sharedDown },
    layers: [...layers.values()],
    routerShapes: routerShapesOf(config, numBands, numExperts),
  };
  checkState(state, layout, source);
  return layout;
}

/** Of the published router where no configuration says otherwise. */
function routerShapesOf(config: FeRAConfig | undefined, numBands: number, numExperts: number) {
  return config ? createRouter(config).shapes : networkShapes(numBands, numExperts);
}

function checkAgainst(
  config: FeRAConfig,
  found: Pick<FeRALayout, "rank" | "numExperts" | "numBands" | "sharedDown">,
  source: string,
): void {
  for (const key of ["rank", "numExperts", "numBands", "sharedDown"] as const) {
    if (config[key] !== found[key]) {
      throw new FormatError(source, `its configuration says ${key}=${config[key]}, its tensors ${found[key]}.`);
    }
  }
}

/** Throws a FormatError unless the state holds exactly the tensors of the layout. */
function checkState(state: ReadonlyMap<string, Tensor>, layout: FeRALayout, source: string): void {
  // Counted before anything is listed: a lying header must not make us build long lists.
  const perLayer = layout.sharedDown ? 1 + layout.numExperts : 2 * layout.numExperts;
  const expected = layout.routerShapes.size + layout.layers.length * perLayer;
  const problems: string[] = [];
  if (expected <= 2 * state.size + 4) {
    const shapes = stateShapes(layout);
    for (const [name, shape] of shapes) {
      const given = state.get(name);
      if (!given) problems.push(`"${name}" is missing`);
      else if (!sameShape(given.shape, shape)) {
        problems.push(`"${name}" is [${given.shape.join(",")}], but the other tensors ask for [${shape.join(",")}]`);
      }
    }
    for (const name of state.keys()) if (!shapes.has(name)) problems.push(`"${name}" is no tensor of a FeRA adapter`);
  } else {
    problems.push(
      `${layout.numExperts} experts (router.net.2.weight) on ${layout.layers.length} layers need ${expected} tensors; it holds ${state.size}`,
    );
  }
  if (problems.length === 0) return;
  const rest = problems.length > 1 ? ` (and ${problems.length - 1} more such problems)` : "";
  throw new FormatError(source, `${problems[0]}${rest}.`);
}
