// SD3Transformer2DModel: the transformer of Stable Diffusion 3 and 3.5, whose text and image tokens attend together.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { conv2d, linear, type ModelWeights, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
import type { PretrainedOptions } from "../pretrained.js";
import { unpacked } from "../transformer/latent-packing.js";
import {
  freshTransformer,
  loadTransformer,
  TransformerDenoiser,
  type TransformerFamily,
  type TransformerValues,
} from "../transformer/transformer-denoiser.js";
import {
  continuousNorm,
  fed,
  JOINT_ATTENTION_LAYERS,
  joinedStreams,
  modulated,
  modulation,
  plainNorm,
  projections,
  splitTokens,
  timeTextEmbedding,
} from "../transformer/transformer-layers.js";
import { parseSD3Config, type SD3TransformerConfig } from "./sd3-config.js";
import { gridPositions } from "./sd3-positions.js";

const NORM_EPSILON = 1e-6;

const FAMILY: TransformerFamily<SD3TransformerConfig> = {
  name: "SD3Transformer2DModel",
  parse: parseSD3Config,
  latentChannels: (config) => config.in_channels,
  usualTargets: JOINT_ATTENTION_LAYERS,
  patchSize: (config) => config.patch_size,
  largestGrid: (config) => ({ tokens: config.pos_embed_max_size, option: "pos_embed_max_size" }),
  conditioning: (config) => [
    { name: "encoderHiddenStates", shape: ["tokens", config.joint_attention_dim], option: "joint_attention_dim" },
    { name: "pooledProjections", shape: [config.pooled_projection_dim], option: "pooled_projection_dim" },
  ],
  build: sd3Transformer,
};

/** @see Esser et al. 2024, arXiv:2403.03206 */
export class SD3Transformer2DModel extends TransformerDenoiser<SD3TransformerConfig> {
  constructor(config: SD3TransformerConfig, weights: ModelWeights, runtime: RuntimeOptions = {}) {
    super(FAMILY, config, weights, runtime);
  }

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<SD3Transformer2DModel> {
    return loadTransformer(FAMILY, SD3Transformer2DModel, dir, options);
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models of a pipeline. Without `config`, a
   * pipeline's folder, its configuration is told from its tensors' shapes.
   *
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that the model does not use.
   * @throws {ConfigError} If the shapes are those of no published model.
   */
  static fromSingleFile(path: string, options: PretrainedOptions = {}): Promise<SD3Transformer2DModel> {
    return SD3Transformer2DModel.fromPretrained(path, options);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): SD3Transformer2DModel {
    return freshTransformer(FAMILY, SD3Transformer2DModel, config, generator, runtime);
  }
}

/** The transformer as a function from Values to Values. @returns The flow, `[B, C, H, W]`. */
function sd3Transformer(model: Scope, inputs: TransformerValues, config: SD3TransformerConfig): Value {
  const { latents, timesteps, encoderHiddenStates, pooledProjections } = inputs as Record<string, Value>;
  const { patch_size: patch, innerFeatures: features, num_layers: layers } = config;
  const [, channels, height, width] = latents!.shape as [number, number, number, number];
  const grid = [height / patch, width / patch] as const;

  const embed = model.in("pos_embed");
  const patches = conv2d(embed.in("proj"), latents!, features, patch, { stride: patch });
  const tokens = ops.transpose(ops.reshape(patches, [latents!.shape[0]!, features, grid[0] * grid[1]]), [0, 2, 1]);
  let image = ops.add(tokens, gridPositions(embed, config, grid));
  let text = linear(model.in("context_embedder"), encoderHiddenStates!, features);
  const embedded = timeTextEmbedding(
    model.in("time_text_embed"),
    { timesteps: timesteps!, pooledProjections: pooledProjections! },
    features,
  );
  for (let layer = 0; layer < layers; layer++) {
    const block = model.in("transformer_blocks").in(layer);
    const isDual = config.dual_attention_layers.includes(layer);
    ({ image, text } = jointBlock(block, { image, text }, embedded, config, { isDual, isLast: layer === layers - 1 }));
  }
  const normalized = continuousNorm(model.in("norm_out"), image, embedded);
  const flow = linear(model.in("proj_out"), normalized, patch * patch * channels);
  return unpacked(flow, patch, "channels-last", [height, width]);
}

interface Streams {
  image: Value;
  text: Value;
}

/**
 * Joint attention and a feed-forward for each stream, each behind a norm that time and text modulate, gated, and added.
 *
 * @param options.isDual - A second attention among image tokens alone.
 * @param options.isLast - The text is looked at and not changed any more.
 */
function jointBlock(
  scope: Scope,
  { image, text }: Streams,
  embedded: Value,
  config: SD3TransformerConfig,
  { isDual, isLast }: { isDual: boolean; isLast: boolean },
): Streams {
  const { num_attention_heads: heads, innerFeatures: features, qk_norm } = config;
  const options = { heads, bias: true, normEpsilon: qk_norm === null ? undefined : NORM_EPSILON };
  const own = modulation(scope.in("norm1.linear"), embedded, isDual ? 9 : 6, features);
  const [shift, scale, gate, feedShift, feedScale, feedGate, shift2, scale2, gate2] = own as [
    ...[Value, Value, Value, Value, Value, Value],
    ...(Value | undefined)[],
  ];
  const imageNorm = plainNorm(scope.in("norm1"), image);
  const ofText = isLast ? [] : modulation(scope.in("norm1_context.linear"), embedded, 6, features);
  const textNorm = isLast
    ? continuousNorm(scope.in("norm1_context"), text, embedded)
    : modulated(plainNorm(scope.in("norm1_context"), text), ofText[1]!, ofText[0]!);

  const attention = scope.in("attn");
  const { q, k, v } = joinedStreams(
    projections(attention, modulated(imageNorm, scale, shift), "image", options),
    projections(attention, textNorm, "text", options),
  );
  const attended = attention.build(() => ops.attention(q, k, v, { heads }));
  const [forImage, forText] = splitTokens(attended, image.shape[1]!);
  let newImage = ops.add(image, ops.mul(linear(attention.in("to_out.0"), forImage, features), gate));
  if (isDual) {
    const second = scope.in("attn2");
    const own = projections(second, modulated(imageNorm, scale2!, shift2!), "image", options);
    const seen = second.build(() => ops.attention(own.q, own.k, own.v, { heads }));
    newImage = ops.add(newImage, ops.mul(linear(second.in("to_out.0"), seen, features), gate2!));
  }
  newImage = fed(scope, newImage, { norm: "norm2", feedForward: "ff" }, [feedShift, feedScale, feedGate]);
  if (isLast) return { image: newImage, text };
  const changed = ops.mul(linear(attention.in("to_add_out"), forText, features), ofText[2]!);
  const names = { norm: "norm2_context", feedForward: "ff_context" };
  return { image: newImage, text: fed(scope, ops.add(text, changed), names, ofText.slice(3)) };
}
