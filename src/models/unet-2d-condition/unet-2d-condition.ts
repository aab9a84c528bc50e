// UNet2DConditionModel: the noise predictor of Stable Diffusion 1.x, 2.x and XL.

import type { Denoiser, DenoiserInputs, DenoiserShape } from "../../diffusion/index.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { conv2d, embedding, groupNorm, linear, type Scope, sinusoidalEmbedding } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import type { Generator } from "../../tensor/random.js";
import type { Tensor } from "../../tensor/tensor.js";
import { downsample, resnetBlock, upsample } from "../blocks.js";
import { freshWeights, Model } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";
import { textTimeEmbedding } from "./text-time-embedding.js";
import { transformer2d } from "./transformer-2d.js";
import { parseUNetConfig, type UNet2DConditionConfig } from "./unet-config.js";
import { type UNetValues, unetFeeds, unetInputs, unetShapeOf } from "./unet-inputs.js";

export {
  type UNetInputs,
  type UNetShape,
  type UNetValues,
  unetFeeds,
  unetInputs,
  unetShapeOf,
} from "./unet-inputs.js";

const CLASS: ModelClass<UNet2DConditionConfig> = {
  name: "UNet2DConditionModel",
  takesFewBits: true,
  parse: parseUNetConfig,
  build(scope, config) {
    unet(scope, unetInputs(scope.graph, config, smallestShape(config)), config);
  },
};

/** @see Rombach et al. 2022, arXiv:2112.10752; Podell et al. 2023, arXiv:2307.01952 */
export class UNet2DConditionModel extends Model<UNet2DConditionConfig> implements Denoiser {
  readonly className = CLASS.name;

  get latentChannels(): number {
    return this.config.in_channels;
  }

  get smallestShape(): DenoiserShape {
    return smallestShape(this.config);
  }

  shapeOf(inputs: DenoiserInputs): DenoiserShape {
    return unetShapeOf(inputs, this.config);
  }

  feedsOf(inputs: DenoiserInputs): Record<string, Tensor> {
    return unetFeeds(inputs);
  }

  declareInputs(graph: Graph, shape: DenoiserShape, without: readonly string[] = []): Record<string, Value> {
    return { ...unetInputs(graph, this.config, shape, without) };
  }

  build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value {
    return unet(scope, inputs as Readonly<Record<string, Value>> & UNetValues, this.config);
  }

  /**
   * Loads `config.json` and weights from a folder.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<UNet2DConditionModel> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new UNet2DConditionModel(config, weights, runtime);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): UNet2DConditionModel {
    const parsed = CLASS.parse(config, CLASS.name);
    const weights = freshWeights((scope) => CLASS.build(scope, parsed), generator);
    return new UNet2DConditionModel(parsed, weights, runtime);
  }

  /**
   * Predicts noise (or what the checkpoint was trained to predict).
   *
   * @returns `[B, out_channels, H, W]`.
   * @throws {ShapeError} If an input does not fit the configuration.
   */
  async predict(inputs: DenoiserInputs): Promise<Tensor<"float32">> {
    const shape = unetShapeOf(inputs, this.config);
    const build = (graph: Graph) => {
      graph.output("output", unet(this.frozenScope(graph), unetInputs(graph, this.config, shape), this.config));
    };
    return (await this.run(JSON.stringify(shape), build, unetFeeds(inputs))).output as Tensor<"float32">;
  }
}

/** One latent pixel on the lowest level. */
function smallestShape({ blocks }: UNet2DConditionConfig): DenoiserShape {
  const size = 2 ** (blocks.length - 1);
  return { batchSize: 1, latentHeight: size, latentWidth: size, tokens: 1 };
}

/** The UNet as a function from Values to Values. @returns `[B, out_channels, H, W]`. */
export function unet(model: Scope, inputs: UNetValues, config: UNet2DConditionConfig): Value {
  const { blocks } = config;
  const last = blocks.length - 1;
  const resnet = {
    groups: config.norm_num_groups,
    epsilon: config.norm_eps,
    timeEmbedding: embedTime(model, inputs, config),
    scaleShift: config.resnet_time_scale_shift === "scale_shift",
  };
  const attend = (scope: Scope, x: Value, heads: number, layers: number, onlyCrossAttention = false): Value =>
    transformer2d(scope, x, inputs.encoderHiddenStates, {
      heads,
      layers,
      groups: config.norm_num_groups,
      useLinearProjection: config.use_linear_projection,
      onlyCrossAttention,
    });

  let x = conv2d(model.in("conv_in"), inputs.latents, blocks[0]!.channels, 3, { padding: 1 });
  const skips = [x];
  blocks.forEach((block, i) => {
    const scope = model.in("down_blocks").in(i);
    const crosses = config.down_block_types[i] === "CrossAttnDownBlock2D";
    for (let layer = 0; layer < block.layers; layer++) {
      x = resnetBlock(scope.in("resnets").in(layer), x, block.channels, resnet);
      const attention = scope.in("attentions").in(layer);
      if (crosses) x = attend(attention, x, block.heads, block.downTransformers[layer]!, block.onlyCrossAttention);
      skips.push(x);
    }
    if (i < last) {
      x = downsample(scope.in("downsamplers.0"), x, block.channels, config.downsample_padding);
      skips.push(x);
    }
  });

  const middle = model.in("mid_block");
  const { channels, heads } = blocks[last]!;
  if (config.mid_block_type !== null) x = resnetBlock(middle.in("resnets.0"), x, channels, resnet);
  if (config.mid_block_type === "UNetMidBlock2DCrossAttn") {
    x = attend(middle.in("attentions.0"), x, heads, config.midTransformers);
    x = resnetBlock(middle.in("resnets.1"), x, channels, resnet);
  }

  [...blocks].reverse().forEach((block, i) => {
    const scope = model.in("up_blocks").in(i);
    const crosses = config.up_block_types[i] === "CrossAttnUpBlock2D";
    for (let layer = 0; layer <= block.layers; layer++) {
      x = resnetBlock(scope.in("resnets").in(layer), ops.concat([x, skips.pop()!], 1), block.channels, resnet);
      const attention = scope.in("attentions").in(layer);
      if (crosses) x = attend(attention, x, block.heads, block.upTransformers[layer]!, block.onlyCrossAttention);
    }
    if (i < last) {
      const [, , height, width] = skips.at(-1)!.shape;
      x = upsample(scope.in("upsamplers.0"), x, block.channels, [height!, width!]);
    }
  });

  const normalized = groupNorm(model.in("conv_norm_out"), x, config.norm_num_groups, config.norm_eps);
  return conv2d(model.in("conv_out"), ops.silu(normalized), config.out_channels, 3, { padding: 1 });
}

/** Timesteps, classes, and SDXL's sizes and pooled text to `[B, timeFeatures]`. */
function embedTime(model: Scope, inputs: UNetValues, config: UNet2DConditionConfig): Value {
  const { timeFeatures: features } = config;
  const { channels } = config.blocks[0]!;
  const sinusoidal = (values: Value, size: number): Value =>
    sinusoidalEmbedding(values, size, { flipSinToCos: config.flip_sin_to_cos, frequencyShift: config.freq_shift });
  const embed = (scope: Scope, x: Value): Value =>
    linear(scope.in("linear_2"), ops.silu(linear(scope.in("linear_1"), x, features)), features);

  const timeScope = model.in("time_embedding");
  let time = sinusoidal(inputs.timesteps, channels);
  if (inputs.timestepCond) {
    time = ops.add(time, linear(timeScope.in("cond_proj"), inputs.timestepCond, channels, { bias: false }));
  }
  let embedded = embed(timeScope, time);
  if (inputs.classLabels) {
    embedded = ops.add(embedded, embedClass(model.in("class_embedding"), inputs.classLabels));
  }
  if (config.addition_embed_type === "text") {
    const heads = config.addition_embed_type_num_heads;
    const text = textTimeEmbedding(model.in("add_embedding"), inputs.encoderHiddenStates, { features, heads });
    embedded = ops.add(embedded, text);
  }
  const { textEmbeds, timeIds } = inputs;
  if (textEmbeds && timeIds) {
    const sizes = sinusoidal(timeIds, config.addition_time_embed_dim!);
    const concatenated = ops.concat([textEmbeds, ops.reshape(sizes, [timeIds.shape[0]!, -1])], -1);
    embedded = ops.add(embedded, embed(model.in("add_embedding"), concatenated));
  }
  return embedded;

  function embedClass(scope: Scope, labels: Value): Value {
    switch (config.class_embed_type) {
      case null:
        return embedding(scope, ops.cast(labels, "int64"), config.num_class_embeds!, features);
      case "timestep":
        return embed(scope, sinusoidal(labels, channels));
      case "projection":
        return embed(scope, labels);
      case "simple_projection":
        return linear(scope, labels, features);
      case "identity":
        return labels;
    }
  }
}
