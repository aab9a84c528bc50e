// ZImageTransformer2DModel: the transformer of Z-Image, whose image and text tokens are refined apart and then are one row of
// tokens.

import type { Conditioning } from "../../diffusion/index.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { fail } from "../../graph/shapes.js";
import { linear, type ModelWeights, rmsNorm, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
import type { PretrainedOptions } from "../pretrained.js";
import { packed, unpacked } from "../transformer/latent-packing.js";
import { gridPlaces, type Position, type RotaryTables, rotaryTables, turned } from "../transformer/rotary-tables.js";
import {
  freshTransformer,
  loadTransformer,
  TransformerDenoiser,
  type TransformerFamily,
  type TransformerValues,
} from "../transformer/transformer-denoiser.js";
import { plainNorm, projections, splitTokens, waves } from "../transformer/transformer-layers.js";
import { parseZImageConfig, type ZImageTransformerConfig } from "./z-image-config.js";

/** Rows of tokens are filled up to a multiple of so many. */
export const TOKEN_UNIT = 32;
const TIME_FEATURES = 256;
const TIME_HIDDEN = 1024;
/** Of the norms of queries and keys. */
const HEAD_EPSILON = 1e-5;
const NO_BIAS = { bias: false };

const FAMILY: TransformerFamily<ZImageTransformerConfig> = {
  name: "ZImageTransformer2DModel",
  parse: parseZImageConfig,
  latentChannels: (config) => config.in_channels,
  usualTargets: ["to_q", "to_k", "to_v", "to_out.0"],
  patchSize: ({ all_patch_size: [patch] }) => patch!,
  largestGrid: ({ axes_lens: [, rows, columns] }) => ({ tokens: Math.min(rows!, columns!), option: "axes_lens" }),
  conditioning: (config) => [
    { name: "encoderHiddenStates", shape: ["tokens", config.cap_feat_dim], option: "cap_feat_dim" },
    { name: "encoderAttentionMask", shape: ["tokens"], option: "as encoderHiddenStates", isOptional: true },
  ],
  check: checkLengths,
  build: zImageTransformer,
};

/**
 * Z-Image and Z-Image-Turbo.
 *
 * A caption's tokens are filled up with learned ones to a multiple of 32, whose number is part of all positions: the captions
 * of a batch must come to the same. `encoderAttentionMask` tells tokens from what only fills up.
 *
 * @see diffusers' ZImageTransformer2DModel
 */
export class ZImageTransformer2DModel extends TransformerDenoiser<ZImageTransformerConfig> {
  constructor(config: ZImageTransformerConfig, weights: ModelWeights, runtime: RuntimeOptions = {}) {
    super(FAMILY, config, weights, runtime);
  }

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<ZImageTransformer2DModel> {
    return loadTransformer(FAMILY, ZImageTransformer2DModel, dir, options);
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models of a pipeline. Without `config`, a
   * pipeline's folder, its configuration is told from its tensors' shapes.
   *
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that the model does not use.
   * @throws {ConfigError} If the shapes are those of no published model.
   */
  static fromSingleFile(path: string, options: PretrainedOptions = {}): Promise<ZImageTransformer2DModel> {
    return ZImageTransformer2DModel.fromPretrained(path, options);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): ZImageTransformer2DModel {
    return freshTransformer(FAMILY, ZImageTransformer2DModel, config, generator, runtime);
  }
}

/** The multiple of {@link TOKEN_UNIT} that so many tokens are filled up to. */
export const filledUp = (tokens: number): number => Math.ceil(tokens / TOKEN_UNIT) * TOKEN_UNIT;

/** Captions of other multiples of 32 than the batch's width would have other positions. */
function checkLengths(
  { encoderAttentionMask: mask }: Conditioning,
  _config: ZImageTransformerConfig,
  refuse: (problem: string) => never,
): void {
  if (!mask) return;
  const [rows, tokens] = mask.shape as [number, number];
  for (let row = 0; row < rows; row++) {
    const values = Array.from({ length: tokens }, (_, i) => Number(mask.data[row * tokens + i]));
    const length = values.filter((value) => value === 1).length;
    if (values.some((value, i) => value !== (i < length ? 1 : 0))) {
      refuse(`encoderAttentionMask must be ones, then zeros, in every row; row ${row} is not`);
    }
    if (length === 0 || filledUp(length) !== filledUp(tokens)) {
      refuse(
        `captions of a batch must fill the same multiple of ${TOKEN_UNIT} tokens, ${filledUp(tokens)} here; row ${row} ` +
          `has ${length}. Batch it with others of its length, or cut encoderHiddenStates to ${filledUp(length)}`,
      );
    }
  }
}

/** The transformer as a function from Values to Values. @returns The flow, `[B, C, H, W]`. */
function zImageTransformer(model: Scope, inputs: TransformerValues, config: ZImageTransformerConfig): Value {
  const { latents, timesteps, encoderHiddenStates, encoderAttentionMask } = inputs as Record<string, Value>;
  const { dim, n_refiner_layers: refiners, norm_eps: epsilon, t_scale: scale } = config;
  const patch = config.all_patch_size[0]!;
  const [, channels, height, width] = latents!.shape as [number, number, number, number];
  const grid = [height / patch, width / patch] as const;
  const [imageTokens, textTokens] = [grid[0] * grid[1], encoderHiddenStates!.shape[1]!];
  const [imageRow, textRow] = [filledUp(imageTokens), filledUp(textTokens)];
  if (textRow + 1 >= config.axes_lens[0]!) {
    fail("ZImageTransformer2DModel", `captions must be shorter than axes_lens[0]=${config.axes_lens[0]} − 1 tokens`, {
      encoderHiddenStates,
    });
  }
  const imagePlaces = () =>
    filled(
      gridPlaces(grid, (row, column) => [textRow + 1, row, column]),
      imageRow,
    );
  const textPlaces = () => Array.from({ length: textRow }, (_, place) => [place + 1, 0, 0]);
  const tablesOf = (name: string, places: () => readonly Position[]) =>
    rotaryTables(model.graph, `z-image ${name} ${textTokens} ${grid}`, places, {
      features: config.axes_dims,
      theta: config.rope_theta,
      roundsAngles: true,
    });

  // The model's time goes from noise to image, and so does what it predicts.
  const time = ops.mul(ops.sub(ops.mul(timesteps!, -1), -1000), scale / 1000);
  const embedded = embedTime(model.in("t_embedder.mlp"), time, dim);
  const key = `${patch}-1`;
  const embeddedImage = linear(model.in("all_x_embedder").in(key), packed(latents!, patch, "channels-last"), dim);
  let image = filledWith(model, "x_pad_token", embeddedImage, imageRow);
  const imageTables = tablesOf("image", imagePlaces);
  for (let layer = 0; layer < refiners; layer++) {
    image = block(model.in("noise_refiner").in(layer), image, { config, tables: imageTables, embedded });
  }
  const normalized = rmsNorm(model.in("cap_embedder.0"), encoderHiddenStates!, epsilon);
  const embeddedText = linear(model.in("cap_embedder.1"), normalized, dim);
  let text = filledWith(model, "cap_pad_token", embeddedText, textRow, encoderAttentionMask);
  const textTables = tablesOf("text", textPlaces);
  for (let layer = 0; layer < refiners; layer++) {
    text = block(model.in("context_refiner").in(layer), text, { config, tables: textTables });
  }
  let tokens = ops.concat([image, text], 1);
  const tables = tablesOf("both", () => [...imagePlaces(), ...textPlaces()]);
  for (let layer = 0; layer < config.n_layers; layer++) {
    tokens = block(model.in("layers").in(layer), tokens, { config, tables, embedded });
  }
  const [seen] = splitTokens(tokens, imageTokens);
  const last = model.in("all_final_layer").in(key);
  const finalScale = ops.add(linear(last.in("adaLN_modulation.1"), ops.silu(embedded), dim), 1);
  const scaled = ops.mul(plainNorm(last.in("norm_final"), seen), ops.reshape(finalScale, [-1, 1, dim]));
  const flow = linear(last.in("linear"), scaled, patch * patch * channels);
  return ops.neg(unpacked(flow, patch, "channels-last", [height, width]));
}

/** @param time - `[B]`. @returns `[B, 256]`, or as wide as the tokens where these are narrower. */
function embedTime(scope: Scope, time: Value, dim: number): Value {
  const hidden = ops.silu(linear(scope.in(0), waves(time, TIME_FEATURES), TIME_HIDDEN));
  return linear(scope.in(2), hidden, Math.min(dim, TIME_FEATURES));
}

const filled = (places: readonly Position[], count: number): Position[] => [
  ...places,
  ...Array.from({ length: count - places.length }, () => [0, 0, 0]),
];

/**
 * Tokens and, behind them and where the mask is 0, a learned one.
 *
 * @param x - `[B, S, D]`.
 * @param mask - `[B, S]`.
 * @returns `[B, count, D]`.
 */
function filledWith(model: Scope, name: string, x: Value, count: number, mask?: Value): Value {
  const [batch, tokens, features] = x.shape as [number, number, number];
  const filler = model.parameter(name, [1, features], { kind: "constant", value: 0 });
  const one = ops.reshape(filler, [1, 1, features]);
  const chosen = mask ? ops.where(ops.greater(ops.reshape(mask, [batch, tokens, 1]), 0.5), x, one) : x;
  if (count === tokens) return chosen;
  return ops.concat([chosen, ops.expand(one, [batch, count - tokens, features])], 1);
}

/** What a block is told; those of the text's refiner are not told of time. */
interface BlockInputs {
  config: ZImageTransformerConfig;
  tables: RotaryTables;
  embedded?: Value;
}

/** Attention and feed-forward, each between two norms, scaled and gated by time, and added. */
function block(scope: Scope, x: Value, { config, tables, embedded }: BlockInputs): Value {
  const { dim, n_heads: heads, norm_eps: epsilon, qk_norm } = config;
  const told = embedded && timeVectors(scope.in("adaLN_modulation.0"), embedded, dim);
  const scaled = (name: string, value: Value, scale: Value | undefined) => {
    const normalized = rmsNorm(scope.in(name), value, epsilon);
    return scale ? ops.mul(normalized, scale) : normalized;
  };

  const attention = scope.in("attention");
  const own = projections(attention, scaled("attention_norm1", x, told?.scale), "image", {
    heads,
    bias: false,
    normEpsilon: qk_norm ? HEAD_EPSILON : undefined,
  });
  const attended = attention.build(() => {
    const { q, k, v } = turned(own, tables, heads);
    return ops.attention(q, k, v, { heads });
  });
  const out = linear(attention.in("to_out.0"), attended, dim, NO_BIAS);
  const changed = ops.add(x, scaled("attention_norm2", out, told?.gate));
  const fed = gatedFeedForward(scope.in("feed_forward"), scaled("ffn_norm1", changed, told?.feedScale));
  return ops.add(changed, scaled("ffn_norm2", fed, told?.feedGate));
}

/** Scales, 1 added, and gates of a block. @returns Each `[B, 1, D]`. */
function timeVectors(scope: Scope, embedded: Value, features: number) {
  const rows = ops.reshape(linear(scope, embedded, 4 * features), [embedded.shape[0]!, 4, features]);
  const parts = [0, 1, 2, 3].map((i) => ops.slice(rows, 1, i, i + 1));
  const [scale, gate, feedScale, feedGate] = parts as [Value, Value, Value, Value];
  return {
    scale: ops.add(scale, 1),
    gate: ops.tanh(gate),
    feedScale: ops.add(feedScale, 1),
    feedGate: ops.tanh(feedGate),
  };
}

function gatedFeedForward(scope: Scope, x: Value): Value {
  const features = x.shape.at(-1)!;
  const hidden = Math.trunc((features / 3) * 8);
  const [gate, value] = ["w1", "w3"].map((name) => linear(scope.in(name), x, hidden, NO_BIAS)) as [Value, Value];
  return linear(scope.in("w2"), ops.swiglu(gate, value), features, NO_BIAS);
}
