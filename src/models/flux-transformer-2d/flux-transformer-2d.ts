// FluxTransformer2DModel: the transformer of FLUX.1, with blocks of two streams, then blocks of one.

import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { linear, type ModelWeights, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
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
import { FLUX_PACKING, type FluxTransformerConfig, parseFluxConfig } from "./flux-config.js";

const NORM_EPSILON = 1e-6;
const THETA = 10000;

const FAMILY: TransformerFamily<FluxTransformerConfig> = {
  name: "FluxTransformer2DModel",
  parse: parseFluxConfig,
  latentChannels: (config) => config.in_channels / FLUX_PACKING ** 2,
  usualTargets: [
    ...JOINT_ATTENTION_LAYERS,
    ...["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"],
  ],
  patchSize: () => FLUX_PACKING,
  conditioning: (config) => [
    { name: "encoderHiddenStates", shape: ["tokens", config.joint_attention_dim], option: "joint_attention_dim" },
    { name: "pooledProjections", shape: [config.pooled_projection_dim], option: "pooled_projection_dim" },
    ...(config.guidance_embeds ? [{ name: "guidance", shape: [], option: "guidance_embeds is true" }] : []),
  ],
  build: fluxTransformer,
};

/**
 * FLUX.1 dev, which is also told a guidance scale (`guidance`), and schnell.
 *
 * @see diffusers' FluxTransformer2DModel
 */
export class FluxTransformer2DModel extends TransformerDenoiser<FluxTransformerConfig> {
  constructor(config: FluxTransformerConfig, weights: ModelWeights, runtime: RuntimeOptions = {}) {
    super(FAMILY, config, weights, runtime);
  }

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<FluxTransformer2DModel> {
    return loadTransformer(FAMILY, FluxTransformer2DModel, dir, options);
  }

  /**
   * Loads a file with the original code's names: the transformer alone, or with other models of a pipeline. Without `config`, a
   * pipeline's folder, its configuration is told from its tensors' shapes.
   *
   * @throws {FormatError} If the file is none of this family, or a weight is missing, or there that the model does not use.
   * @throws {ConfigError} If the shapes are those of no published model.
   */
  static fromSingleFile(path: string, options: PretrainedOptions = {}): Promise<FluxTransformer2DModel> {
    return FluxTransformer2DModel.fromPretrained(path, options);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): FluxTransformer2DModel {
    return freshTransformer(FAMILY, FluxTransformer2DModel, config, generator, runtime);
  }
}

/** The transformer as a function from Values to Values. @returns The flow, `[B, C, H, W]`. */
function fluxTransformer(model: Scope, inputs: TransformerValues, config: FluxTransformerConfig): Value {
  const { latents, timesteps, encoderHiddenStates, pooledProjections, guidance } = inputs as Record<string, Value>;
  const { innerFeatures: features, num_attention_heads: heads } = config;
  const [, , height, width] = latents!.shape as [number, number, number, number];
  const textTokens = encoderHiddenStates!.shape[1]!;

  let image = linear(model.in("x_embedder"), packed(latents!, FLUX_PACKING, "channels-first"), features);
  let text = linear(model.in("context_embedder"), encoderHiddenStates!, features);
  const embedded = timeTextEmbedding(
    model.in("time_text_embed"),
    { timesteps: timesteps!, pooledProjections: pooledProjections!, guidance },
    features,
  );
  const grid = [height / FLUX_PACKING, width / FLUX_PACKING] as const;
  const positions = () => [
    ...Array.from({ length: textTokens }, () => [0, 0, 0]),
    ...gridPlaces(grid, (row, column) => [0, row, column]),
  ];
  const tables = rotaryTables(model.graph, `flux ${textTokens} ${grid}`, positions, {
    features: config.axes_dims_rope,
    theta: THETA,
  });
  const told = { embedded, tables, heads };
  for (let layer = 0; layer < config.num_layers; layer++) {
    [text, image] = doubleBlock(model.in("transformer_blocks").in(layer), [text, image], told);
  }
  let tokens = ops.concat([text, image], 1);
  for (let layer = 0; layer < config.num_single_layers; layer++) {
    tokens = singleBlock(model.in("single_transformer_blocks").in(layer), tokens, told);
  }
  const [, last] = splitTokens(tokens, textTokens);
  const normalized = continuousNorm(model.in("norm_out"), last, embedded);
  const flow = linear(model.in("proj_out"), normalized, config.in_channels);
  return unpacked(flow, FLUX_PACKING, "channels-first", [height, width]);
}

/** What every block is told. */
interface BlockInputs {
  /** Time, text and guidance, `[B, D]`. */
  embedded: Value;
  tables: RotaryTables;
  heads: number;
}

/** Joint attention and a feed-forward per stream, each behind a modulated norm, gated, and added. */
function doubleBlock(scope: Scope, streams: readonly [Value, Value], told: BlockInputs): [Value, Value] {
  const { embedded, tables, heads } = told;
  const [text, image] = streams;
  const features = image.shape.at(-1)!;
  const ofText = modulation(scope.in("norm1_context.linear"), embedded, 6, features);
  const ofImage = modulation(scope.in("norm1.linear"), embedded, 6, features);
  const attention = scope.in("attn");
  const options = { heads, bias: true, normEpsilon: NORM_EPSILON };
  const normText = modulated(plainNorm(scope.in("norm1_context"), text), ofText[1]!, ofText[0]!);
  const normImage = modulated(plainNorm(scope.in("norm1"), image), ofImage[1]!, ofImage[0]!);
  const joint = joinedStreams(
    projections(attention, normText, "text", options),
    projections(attention, normImage, "image", options),
  );
  const attended = attention.build(() => {
    const { q, k, v } = turned(joint, tables, heads);
    return ops.attention(q, k, v, { heads });
  });
  const [forText, forImage] = splitTokens(attended, text.shape[1]!);
  const changedText = ops.add(text, ops.mul(linear(attention.in("to_add_out"), forText, features), ofText[2]!));
  const changedImage = ops.add(image, ops.mul(linear(attention.in("to_out.0"), forImage, features), ofImage[2]!));
  return [
    fed(scope, changedText, { norm: "norm2_context", feedForward: "ff_context" }, ofText.slice(3)),
    fed(scope, changedImage, { norm: "norm2", feedForward: "ff" }, ofImage.slice(3)),
  ];
}

/** Attention and feed-forward side by side over all tokens, with one layer out of both. */
function singleBlock(scope: Scope, x: Value, { embedded, tables, heads }: BlockInputs): Value {
  const features = x.shape.at(-1)!;
  const [shift, scale, gate] = modulation(scope.in("norm.linear"), embedded, 3, features) as [Value, Value, Value];
  const normalized = modulated(plainNorm(scope.in("norm"), x), scale, shift);
  const hidden = ops.geluTanh(linear(scope.in("proj_mlp"), normalized, 4 * features));
  const attention = scope.in("attn");
  const own = projections(attention, normalized, "image", { heads, bias: true, normEpsilon: NORM_EPSILON });
  const attended = attention.build(() => {
    const { q, k, v } = turned(own, tables, heads);
    return ops.attention(q, k, v, { heads });
  });
  const out = linear(scope.in("proj_out"), ops.concat([attended, hidden], -1), features);
  return ops.add(x, ops.mul(out, gate));
}
