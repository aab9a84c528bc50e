// What UNet2DConditionModel takes: as tensors, as values of a graph, and the checks between the two.

import { conditioningOf, type DenoiserInputs, type DenoiserShape } from "../../diffusion/index.js";
import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { UNet2DConditionConfig } from "./unet-config.js";

/** Inputs of the UNet as graph values. B batch. */
export interface UNetValues {
  /** Noisy latents `[B, C, H, W]`. */
  latents: Value;
  /** float32 `[B]`. */
  timesteps: Value;
  /** Text states `[B, T, D]`. */
  encoderHiddenStates: Value;
  /** SDXL's pooled text `[B, P]`, float32. */
  textEmbeds?: Value;
  /** SDXL's sizes `[B, N]`, float32. */
  timeIds?: Value;
  /** See {@link UNetInputs.classLabels}; float32. */
  classLabels?: Value;
  /** float32 `[B, time_cond_proj_dim]`. */
  timestepCond?: Value;
}

/** Inputs of the UNet as tensors. B batch. */
export interface UNetInputs extends DenoiserInputs {
  /** Text states `[B, T, cross_attention_dim]`. */
  encoderHiddenStates: Tensor;
  /**
   * SDXL: pooled text `[B, P]`, and original height and width, crop from top and left, target height and width
   * `[B, 6]` (for the refiner an aesthetic score instead of the last two: `[B, 5]`).
   */
  addedConditions?: { textEmbeds: Tensor; timeIds: Tensor };
  /**
   * For checkpoints with classes. `num_class_embeds`: numbers of classes, int64, int32 or float32 `[B]`;
   * `class_embed_type` "timestep": numbers `[B]`; "projection" and "simple_projection": float32
   * `[B, projection_class_embeddings_input_dim]`; "identity": float32 `[B, width of the time embedding]`.
   */
  classLabels?: Tensor;
}

/** Input shapes that a UNet graph is built for; `timeIds` are 6, or 5 for the refiner's, where left out. */
export type UNetShape = DenoiserShape;

/** What the configuration makes of class labels. */
export function classLabelsOf(
  config: UNet2DConditionConfig,
): { kind: "class" | "number" } | { kind: "vector"; features: number; option: string } | undefined {
  if (config.class_embed_type === null) return config.num_class_embeds === null ? undefined : { kind: "class" };
  if (config.class_embed_type === "timestep") return { kind: "number" };
  if (config.class_embed_type === "identity") {
    return { kind: "vector", features: config.timeFeatures, option: "width of the time embedding" };
  }
  const option = "projection_class_embeddings_input_dim";
  return { kind: "vector", features: config[option]!, option };
}

/**
 * Declares the UNet's graph inputs.
 *
 * @param without - Names that are left out, for Values that are put in their place.
 */
export function unetInputs(
  graph: Graph,
  config: UNet2DConditionConfig,
  shape: UNetShape,
  without: readonly string[] = [],
): UNetValues {
  const { batchSize, latentHeight, latentWidth, tokens } = shape;
  const values: Partial<Record<keyof UNetValues, Value>> = {};
  const declare = (name: keyof UNetValues, sizes: readonly number[]) => {
    if (!without.includes(name)) values[name] = graph.input(name, "float32", sizes);
  };
  declare("latents", [batchSize, config.in_channels, latentHeight, latentWidth]);
  declare("timesteps", [batchSize]);
  declare("encoderHiddenStates", [batchSize, tokens, config.cross_attention_dim]);
  if (config.addition_embed_type === "text_time") {
    const numbers = shape.timeIds ?? usualTimeIds(config);
    declare("textEmbeds", [batchSize, pooledFeatures(config, numbers)]);
    declare("timeIds", [batchSize, numbers]);
  }
  const labels = classLabelsOf(config);
  if (labels) {
    const features = labels.kind === "vector" ? [labels.features] : [];
    declare("classLabels", [batchSize, ...features]);
  }
  if (config.time_cond_proj_dim !== null) {
    declare("timestepCond", [batchSize, config.time_cond_proj_dim]);
  }
  return values as UNetValues;
}

/** The tensors for {@link unetInputs}, by name. Timesteps and classes become float32; a single timestep is repeated. */
export function unetFeeds(inputs: DenoiserInputs): Record<string, Tensor> {
  const { classLabels, ...conditioning } = conditioningOf(inputs);
  const batch = inputs.latents.shape[0]!;
  const { data } = inputs.timesteps;
  const timesteps = Float32Array.from({ length: batch }, (_, i) => Number(data[data.length === 1 ? 0 : i]));
  const labels = classLabels && { classLabels: tensor(Float32Array.from(classLabels.data, Number), classLabels.shape) };
  return { latents: inputs.latents, timesteps: tensor(timesteps, [batch]), ...conditioning, ...labels };
}

/**
 * Checks tensors against the configuration and gives the shape to build for.
 *
 * @throws {ShapeError} That names the input, or the option that asks for one that is missing.
 */
export function unetShapeOf(inputs: DenoiserInputs, config: UNet2DConditionConfig): UNetShape {
  const { latents, timesteps } = inputs;
  const {
    encoderHiddenStates: states,
    textEmbeds,
    timeIds,
    classLabels,
    timestepCond,
    ...others
  } = conditioningOf(inputs);
  const [batchSize, channels, height, width] = latents.shape as [number, number, number, number];
  if (latents.shape.length !== 4 || channels !== config.in_channels) {
    refuse(`latents must be [B, ${config.in_channels}, H, W]; got [${latents.shape.join(",")}]`);
  }
  if (timesteps.size !== 1 && timesteps.size !== batchSize) {
    refuse(`timesteps must be [${batchSize}]; got [${timesteps.shape.join(",")}]`);
  }
  if (!states) refuse("encoderHiddenStates are missing");
  if (states.shape.length !== 3 || states.shape[0] !== batchSize || states.shape[2] !== config.cross_attention_dim) {
    const expected = `[${batchSize}, T, ${config.cross_attention_dim}]`;
    refuse(`encoderHiddenStates must be ${expected} (cross_attention_dim); got [${states.shape.join(",")}]`);
  }
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) refuse(`takes no "${unknown}"; leave it out`);
  const hasText = config.addition_embed_type === "text_time";
  const added = textEmbeds && timeIds && { textEmbeds, timeIds };
  const given = added ?? textEmbeds ?? timeIds;
  if (given && !added && hasText) refuse("addedConditions must have both textEmbeds and timeIds");
  checkPresence("addedConditions { textEmbeds, timeIds }", given, hasText, "addition_embed_type is text_time");
  checkClassLabels(classLabels, config, batchSize);
  const guidance = config.time_cond_proj_dim;
  checkPresence("timestepCond", timestepCond, guidance !== null, `time_cond_proj_dim is ${guidance}`);
  if (timestepCond) checkRows("timestepCond", timestepCond, [batchSize, guidance!], "time_cond_proj_dim");
  const shape: UNetShape = { batchSize, latentHeight: height, latentWidth: width, tokens: states.shape[1]! };
  if (!added) return shape;
  const numbers = added.timeIds.shape[1] ?? 0;
  checkRows("timeIds", added.timeIds, [batchSize, numbers], "addition_embed_type");
  const pooled = pooledFeatures(config, numbers);
  checkRows("textEmbeds", added.textEmbeds, [batchSize, pooled], `${numbers} timeIds leave that`);
  return { ...shape, timeIds: numbers };
}

function checkClassLabels(labels: Tensor | undefined, config: UNet2DConditionConfig, batch: number): void {
  const wanted = classLabelsOf(config);
  const { class_embed_type: type, num_class_embeds: classes } = config;
  const reason = type === null ? `num_class_embeds is ${classes}` : `class_embed_type is ${type}`;
  checkPresence("classLabels", labels, wanted !== undefined, reason);
  if (!labels || !wanted) return;
  const features = wanted.kind === "vector" ? [wanted.features] : [];
  checkRows("classLabels", labels, [batch, ...features], wanted.kind === "vector" ? wanted.option : reason);
  if (wanted.kind !== "class") return;
  for (const label of labels.data) {
    const number = Number(label);
    if (!Number.isInteger(number) || number < 0 || number >= classes!) {
      refuse(`classLabels must be integers in 0 … ${classes! - 1} (num_class_embeds); got ${number}`);
    }
  }
}

function checkPresence(name: string, given: unknown, isWanted: boolean, reason: string): void {
  if (isWanted && given === undefined) refuse(`this checkpoint needs ${name} (${reason})`);
  if (!isWanted && given !== undefined) refuse(`this checkpoint takes no ${name}; leave it out`);
}

function checkRows(name: string, { shape }: Tensor, expected: readonly number[], reason: string): void {
  if (shape.length === expected.length && shape.every((dimension, i) => dimension === expected[i])) return;
  refuse(`${name} must be [${expected.join(", ")}] (${reason}); got [${shape.join(",")}]`);
}

/** Width of the pooled text: what so many numbers leave of the embedding's input. */
function pooledFeatures(config: UNet2DConditionConfig, numbers: number): number {
  const { projection_class_embeddings_input_dim: total, addition_time_embed_dim: each } = config;
  const rest = total! - numbers * each!;
  if (rest < 1) {
    refuse(
      `${numbers} timeIds of ${each} features (addition_time_embed_dim) leave no room for textEmbeds in ` +
        `projection_class_embeddings_input_dim=${total}`,
    );
  }
  return rest;
}

/** The refiner has one text encoder, whose states are as wide as its pooled text, and five numbers. */
function usualTimeIds(config: UNet2DConditionConfig): number {
  const rest = config.projection_class_embeddings_input_dim! - 5 * config.addition_time_embed_dim!;
  return rest === config.cross_attention_dim ? 5 : 6;
}

function refuse(problem: string): never {
  throw new ShapeError(`UNet2DConditionModel: ${problem}.`);
}
