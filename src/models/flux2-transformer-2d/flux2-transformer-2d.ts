// Flux2Transformer2DModel: the transformer of FLUX.2, with blocks of two streams, then blocks of one. All blocks of a kind are
// told of time by the same vectors.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { linear, type ModelWeights, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
import { FLUX_PACKING } from "../flux-transformer-2d/flux-config.js";
import type { PretrainedOptions } from "../pretrained.js";
import { packed, unpacked } from "../transformer/latent-packing.js";
import { gridPlaces, type RotaryTables, rotaryTables, turned } from "../transformer/rotary-tables.js";
import {
  freshTransformer,
  loadTransformer,
  TransformerDenoiser,
  type TransformerFamily,
  type TransformerValues,
} from "../transformer/transformer-denoiser.js";
import {
  continuousNorm,
  embedder,
  headNorm,
  joinedStreams,
  modulated,
  modulation,
  plainNorm,
  projections,
  splitTokens,
  waves,
} from "../transformer/transformer-layers.js";
import { type Flux2TransformerConfig, parseFlux2Config } from "./flux2-config.js";

const NO_BIAS = { bias: false };

const FAMILY: TransformerFamily<Flux2TransformerConfig> = {
  name: "Flux2Transformer2DModel",
  parse: parseFlux2Config,
  latentChannels: (config) => config.in_channels / FLUX_PACKING ** 2,
  usualTargets: ["to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"],
  patchSize: () => FLUX_PACKING,
  conditioning: (config) => [
    { name: "encoderHiddenStates", shape: ["tokens", config.joint_attention_dim], option: "joint_attention_dim" },
    ...(config.guidance_embeds ? [{ name: "guidance", shape: [], option: "guidance_embeds is true" }] : []),
  ],
  build: flux2Transformer,
};

/**
 * FLUX.2 klein, and dev, which is also told a guidance scale (`guidance`). Latents are the autoencoder's, normalized, on
 * their own grid: 32 channels, not patches of 128.
 *
 * @see diffusers' Flux2Transformer2DModel
 */
export class Flux2Transformer2DModel extends TransformerDenoiser<Flux2TransformerConfig> {
  constructor(config: Flux2TransformerConfig, weights: ModelWeights, runtime: RuntimeOptions = {}) {
    super(FAMILY, config, weights, runtime);
  }

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<Flux2Transformer2DModel> {
    return loadTransformer(FAMILY, Flux2Transformer2DModel, dir, options);
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models of a pipeline. Without `config`, a
   * pipeline's folder, its configuration is told from its tensors' shapes.
   *
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that the model does not use.
   * @throws {ConfigError} If the shapes are those of no published model.
   */
  static fromSingleFile(path: string, options: PretrainedOptions = {}): Promise<Flux2Transformer2DModel> {
    return Flux2Transformer2DModel.fromPretrained(path, options);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): Flux2Transformer2DModel {
    return freshTransformer(FAMILY, Flux2Transformer2DModel, config, generator, runtime);
  }
}

/** What every block is told. */
interface BlockInputs {
  config: Flux2TransformerConfig;
  tables: RotaryTables;
}

/** The transformer as a function from Values to Values. @returns The flow, `[B, C, H, W]`. */
function flux2Transformer(model: Scope, inputs: TransformerValues, config: Flux2TransformerConfig): Value {
  const { latents, encoderHiddenStates } = inputs as Record<string, Value>;
  const { innerFeatures: features, eps: epsilon } = config;
  const [, , height, width] = latents!.shape as [number, number, number, number];
  const textTokens = encoderHiddenStates!.shape[1]!;

  const embedded = embedTime(model.in("time_guidance_embed"), inputs, config);
  const told = (name: string, count: number) =>
    modulation(model.in(name).in("linear"), embedded, count, features, NO_BIAS);
  const ofImage = told("double_stream_modulation_img", 6);
  const ofText = told("double_stream_modulation_txt", 6);
  const ofBoth = told("single_stream_modulation", 3);

  let image = linear(model.in("x_embedder"), packed(latents!, FLUX_PACKING, "channels-first"), features, NO_BIAS);
  let text = linear(model.in("context_embedder"), encoderHiddenStates!, features, NO_BIAS);
  const grid = [height / FLUX_PACKING, width / FLUX_PACKING] as const;
  const positions = () => [
    ...Array.from({ length: textTokens }, (_, place) => [0, 0, 0, place]),
    ...gridPlaces(grid, (row, column) => [0, row, column, 0]),
  ];
  const tables = rotaryTables(model.graph, `flux2 ${textTokens} ${grid}`, positions, {
    features: config.axes_dims_rope,
    theta: config.rope_theta,
  });
  const common = { config, tables };
  for (let layer = 0; layer < config.num_layers; layer++) {
    const block = model.in("transformer_blocks").in(layer);
    [text, image] = doubleBlock(block, [text, image], { ...common, ofText, ofImage });
  }
  let tokens = ops.concat([text, image], 1);
  for (let layer = 0; layer < config.num_single_layers; layer++) {
    tokens = singleBlock(model.in("single_transformer_blocks").in(layer), tokens, { ...common, ofBoth });
  }
  const [, last] = splitTokens(tokens, textTokens);
  const normalized = continuousNorm(model.in("norm_out"), last, embedded, { epsilon, bias: false });
  const flow = linear(model.in("proj_out"), normalized, config.in_channels, NO_BIAS);
  return unpacked(flow, FLUX_PACKING, "channels-first", [height, width]);
}

/** Time and, where there is one, the guidance scale. @returns `[B, D]`. */
function embedTime(scope: Scope, { timesteps, guidance }: TransformerValues, config: Flux2TransformerConfig): Value {
  const { innerFeatures: features, timestep_guidance_channels: numbers } = config;
  const time = embedder(scope.in("timestep_embedder"), waves(timesteps!, numbers), features, NO_BIAS);
  if (!guidance) return time;
  const waved = waves(ops.mul(guidance, 1000), numbers);
  return ops.add(time, embedder(scope.in("guidance_embedder"), waved, features, NO_BIAS));
}

/** Joint attention and a feed-forward per stream, each behind a modulated norm, gated, and added. */
function doubleBlock(
  scope: Scope,
  streams: readonly [Value, Value],
  { config, tables, ofText, ofImage }: BlockInputs & { ofText: readonly Value[]; ofImage: readonly Value[] },
): [Value, Value] {
  const { num_attention_heads: heads, eps: epsilon, innerFeatures: features, hiddenFeatures } = config;
  const [text, image] = streams;
  const attention = scope.in("attn");
  const options = { heads, bias: false, normEpsilon: epsilon };
  const normed = (name: string, x: Value, told: readonly Value[]) =>
    modulated(plainNorm(scope.in(name), x, epsilon), told[1]!, told[0]!);
  const joint = joinedStreams(
    projections(attention, normed("norm1_context", text, ofText), "text", options),
    projections(attention, normed("norm1", image, ofImage), "image", options),
  );
  const attended = attention.build(() => {
    const { q, k, v } = turned(joint, tables, heads);
    return ops.attention(q, k, v, { heads });
  });
  const [forText, forImage] = splitTokens(attended, text.shape[1]!);
  const outOf = (name: string, x: Value) => linear(attention.in(name), x, features, NO_BIAS);
  const changedText = ops.add(text, ops.mul(outOf("to_add_out", forText), ofText[2]!));
  const changedImage = ops.add(image, ops.mul(outOf("to_out.0", forImage), ofImage[2]!));
  const fed = (x: Value, norm: string, name: string, told: readonly Value[]) => {
    const fedForward = gatedFeedForward(scope.in(name), normed(norm, x, told), hiddenFeatures);
    return ops.add(x, ops.mul(fedForward, told[2]!));
  };
  return [
    fed(changedText, "norm2_context", "ff_context", ofText.slice(3)),
    fed(changedImage, "norm2", "ff", ofImage.slice(3)),
  ];
}

function gatedFeedForward(scope: Scope, x: Value, hidden: number): Value {
  const both = linear(scope.in("linear_in"), x, 2 * hidden, NO_BIAS);
  const [gate, value] = ops.splitFeatures(both, [hidden, hidden]) as [Value, Value];
  return linear(scope.in("linear_out"), ops.swiglu(gate, value), x.shape.at(-1)!, NO_BIAS);
}

/** Attention and feed-forward side by side over all tokens, with one layer into both and one out of both. */
function singleBlock(
  scope: Scope,
  x: Value,
  { config, tables, ofBoth }: BlockInputs & { ofBoth: readonly Value[] },
): Value {
  const { num_attention_heads: heads, eps: epsilon, innerFeatures: features, hiddenFeatures: hidden } = config;
  const [shift, scale, gate] = ofBoth as [Value, Value, Value];
  const normalized = modulated(plainNorm(scope.in("norm"), x, epsilon), scale, shift);
  const attention = scope.in("attn");
  const sizes = [features, features, features, hidden, hidden];
  const all = linear(attention.in("to_qkv_mlp_proj"), normalized, 3 * features + 2 * hidden, NO_BIAS);
  const [q, k, v, fedGate, fedValue] = ops.splitFeatures(all, sizes) as [Value, Value, Value, Value, Value];
  const normed = {
    q: headNorm(attention.in("norm_q"), q, heads, epsilon),
    k: headNorm(attention.in("norm_k"), k, heads, epsilon),
    v,
  };
  const attended = attention.build(() => {
    const own = turned(normed, tables, heads);
    return ops.attention(own.q, own.k, own.v, { heads });
  });
  const both = ops.concat([attended, ops.swiglu(fedGate, fedValue)], -1);
  return ops.add(x, ops.mul(linear(attention.in("to_out"), both, features, NO_BIAS), gate));
}
