// Layers that the transformers of several families have in common, under diffusers' names.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { linear, rmsNorm, type Scope, sinusoidalEmbedding } from "../../nn/index.js";

/** The projections of a joint attention, as diffusers' training scripts name them. */
export const JOINT_ATTENTION_LAYERS: readonly string[] = [
  ...["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"],
  ...["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"],
];

/** Features of a number before it is embedded. */
const TIME_FEATURES = 256;

/** Two linear layers with SiLU between them. @param x - `[B, in]`. @returns `[B, features]`. */
export function embedder(scope: Scope, x: Value, features: number, { bias = true } = {}): Value {
  const hidden = ops.silu(linear(scope.in("linear_1"), x, features, { bias }));
  return linear(scope.in("linear_2"), hidden, features, { bias });
}

/** Numbers from 0 to 1000 as waves. @param values - `[B]`. @returns `[B, features]`. */
export const waves = (values: Value, features = TIME_FEATURES): Value =>
  sinusoidalEmbedding(values, features, { flipSinToCos: true, frequencyShift: 0 });

/** Inputs that {@link timeTextEmbedding} makes one vector of. */
interface TimeTextInputs {
  /** `[B]`. */
  timesteps: Value;
  /** `[B, P]`. */
  pooledProjections: Value;
  /** `[B]`. */
  guidance?: Value | undefined;
}

/** Time, pooled text and, where there is one, the guidance scale. @returns `[B, features]`. */
export function timeTextEmbedding(scope: Scope, inputs: TimeTextInputs, features: number): Value {
  const { timesteps, pooledProjections, guidance } = inputs;
  const time = embedder(scope.in("timestep_embedder"), waves(timesteps), features);
  const guided = guidance
    ? ops.add(time, embedder(scope.in("guidance_embedder"), waves(ops.mul(guidance, 1000)), features))
    : time;
  return ops.add(guided, embedder(scope.in("text_embedder"), pooledProjections, features));
}

/**
 * Vectors that a block is told by what the denoiser is told: `count` of them, from one linear layer.
 *
 * @param embedded - `[B, D]`.
 * @returns Each `[B, 1, features]`.
 */
export function modulation(
  scope: Scope,
  embedded: Value,
  count: number,
  features: number,
  options: { bias?: boolean } = {},
): Value[] {
  const all = linear(scope, ops.silu(embedded), count * features, options);
  const rows = ops.reshape(all, [all.shape[0]!, count, features]);
  return Array.from({ length: count }, (_, i) => ops.slice(rows, 1, i, i + 1));
}

/** x · (1 + scale) + shift. */
export const modulated = (x: Value, scale: Value, shift: Value): Value => ops.add(ops.mul(x, ops.add(scale, 1)), shift);

/** Layer normalization without scale and shift of its own. */
export const plainNorm = (scope: Scope, x: Value, epsilon = 1e-6): Value =>
  scope.build(() => ops.layerNorm(x, undefined, undefined, epsilon).y);

/** The last norm, told scale and shift in this order. */
export function continuousNorm(
  scope: Scope,
  x: Value,
  embedded: Value,
  options: { epsilon?: number; bias?: boolean } = {},
): Value {
  const { epsilon = 1e-6, bias = true } = options;
  const [scale, shift] = modulation(scope.in("linear"), embedded, 2, x.shape.at(-1)!, { bias }) as [Value, Value];
  return modulated(plainNorm(scope.in("norm"), x, epsilon), scale, shift);
}

/** Four times as wide inside, with the approximate GELU. */
function geluFeedForward(scope: Scope, x: Value): Value {
  const features = x.shape.at(-1)!;
  const hidden = ops.geluTanh(linear(scope.in("net.0.proj"), x, 4 * features));
  return linear(scope.in("net.2"), hidden, features);
}

/** x + gate · {@link geluFeedForward}(norm(x) · (1 + scale) + shift). @param told - Shift, scale and gate. */
export function fed(
  scope: Scope,
  x: Value,
  { norm, feedForward }: { norm: string; feedForward: string },
  told: readonly Value[],
): Value {
  const [shift, scale, gate] = told as [Value, Value, Value];
  const normalized = modulated(plainNorm(scope.in(norm), x), scale, shift);
  return ops.add(x, ops.mul(geluFeedForward(scope.in(feedForward), normalized), gate));
}

/** RMS normalization of each head. @param x - `[B, S, heads·D]`. */
export function headNorm(scope: Scope, x: Value, heads: number, epsilon: number): Value {
  const [batch, tokens, features] = x.shape as [number, number, number];
  const split = ops.reshape(x, [batch, tokens, heads, features / heads]);
  return ops.reshape(rmsNorm(scope, split, epsilon), x.shape);
}

/** Queries, keys and values of one stream of tokens. */
export interface Projections {
  q: Value;
  k: Value;
  v: Value;
}

/** How a stream of tokens is projected. */
export interface ProjectionOptions {
  heads: number;
  bias: boolean;
  /** ε of the norms of queries and keys; absent where these are not normalized. */
  normEpsilon?: number | undefined;
}

const IMAGE = { q: "to_q", k: "to_k", v: "to_v", normQ: "norm_q", normK: "norm_k" } as const;
const TEXT = {
  q: "add_q_proj",
  k: "add_k_proj",
  v: "add_v_proj",
  normQ: "norm_added_q",
  normK: "norm_added_k",
} as const;

/** @param stream - Whose layers: text has its own in a joint attention. */
export function projections(
  scope: Scope,
  x: Value,
  stream: "image" | "text",
  { heads, bias, normEpsilon }: ProjectionOptions,
): Projections {
  const names = stream === "image" ? IMAGE : TEXT;
  const features = x.shape.at(-1)!;
  const project = (name: string) => linear(scope.in(name), x, features, { bias });
  const normed = (name: string, value: Value) =>
    normEpsilon === undefined ? value : headNorm(scope.in(name), value, heads, normEpsilon);
  const q = normed(names.normQ, project(names.q));
  const k = normed(names.normK, project(names.k));
  return { q, k, v: project(names.v) };
}

/** Both streams' tokens, one after the other. */
export const joinedStreams = (a: Projections, b: Projections): Projections => ({
  q: ops.concat([a.q, b.q], 1),
  k: ops.concat([a.k, b.k], 1),
  v: ops.concat([a.v, b.v], 1),
});

/** The first `count` tokens, and the others. @param x - `[B, S, D]`. */
export const splitTokens = (x: Value, count: number): [Value, Value] => [
  ops.slice(x, 1, 0, count),
  ops.slice(x, 1, count, x.shape[1]!),
];
