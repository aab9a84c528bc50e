// UNet2DConditionModel: the noise predictor of Stable Diffusion 1.x, 2.x and XL.

import { ShapeError } from "../errors.js";
import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { conv2d, groupNorm, linear, type Scope, sinusoidalEmbedding } from "../nn/index.js";
import type { RuntimeOptions } from "../runtime/index.js";
import type { Generator } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { downsample, resnetBlock, upsample } from "./blocks.js";
import { freshWeights, Model } from "./model.js";
import { loadPretrained, type PretrainedOptions } from "./pretrained.js";
import { transformer2d } from "./transformer-2d.js";
import { parseUNetConfig, type UNet2DConditionConfig } from "./unet-2d-condition-config.js";

/** Inputs of the UNet as graph values. */
export interface UNetValues {
  /** Noisy latents `[B, C, H, W]`. */
  latents: Value;
  /** float32 `[B]`. */
  timesteps: Value;
  /** Text states `[B, T, D]`. */
  encoderHiddenStates: Value;
  /** SDXL's pooled text `[B, P]` and sizes `[B, 6]`, float32. */
  addedConditions?: { textEmbeds: Value; timeIds: Value };
}

/** Inputs of the UNet as tensors. */
export interface UNetInputs {
  latents: Tensor;
  /** int64, int32 or float32 `[B]`. */
  timesteps: Tensor;
  encoderHiddenStates: Tensor;
  addedConditions?: { textEmbeds: Tensor; timeIds: Tensor };
}

/** Input shapes that a UNet graph is built for. */
export interface UNetShape {
  batchSize: number;
  height: number;
  width: number;
  tokens: number;
}

/** @see Rombach et al. 2022, arXiv:2112.10752; Podell et al. 2023, arXiv:2307.01952 */
export class UNet2DConditionModel extends Model<UNet2DConditionConfig> {
  /** Loads `config.json` and weights from a folder. */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<UNet2DConditionModel> {
    const loaded = await loadPretrained(dir, options, { expectedClass: "UNet2DConditionModel" });
    return new UNet2DConditionModel(parseUNetConfig(loaded.config, loaded.source), loaded.weights, loaded.runtime);
  }

  /** A model with random weights. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): UNet2DConditionModel {
    const parsed = parseUNetConfig(config, "UNet2DConditionModel");
    const size = 2 ** (parsed.blocks.length - 1);
    const weights = freshWeights((scope) => {
      unet(scope, unetInputs(scope.graph, parsed, { batchSize: 1, height: size, width: size, tokens: 1 }), parsed);
    }, generator);
    return new UNet2DConditionModel(parsed, weights, runtime);
  }

  /**
   * Predicts noise (or what the checkpoint was trained to predict).
   *
   * @returns `[B, out_channels, H, W]`.
   * @throws {ShapeError} If an input does not fit the configuration.
   */
  async predict(inputs: UNetInputs): Promise<Tensor<"float32">> {
    const shape = unetShapeOf(inputs, this.config);
    const compiled = await this.compiled(JSON.stringify(shape), (graph) => {
      graph.output("output", unet(this.frozenScope(graph), unetInputs(graph, this.config, shape), this.config));
    });
    return (await compiled.run(unetFeeds(inputs))).output as Tensor<"float32">;
  }
}

/** Declares the UNet's graph inputs. */
export function unetInputs(graph: Graph, config: UNet2DConditionConfig, shape: UNetShape): UNetValues {
  const { batchSize, height, width, tokens } = shape;
  const values: UNetValues = {
    latents: graph.input("latents", "float32", [batchSize, config.in_channels, height, width]),
    timesteps: graph.input("timesteps", "float32", [batchSize]),
    encoderHiddenStates: graph.input("encoderHiddenStates", "float32", [batchSize, tokens, config.cross_attention_dim]),
  };
  if (config.addition_embed_type === "text_time") {
    const pooled = config.projection_class_embeddings_input_dim! - 6 * config.addition_time_embed_dim!;
    values.addedConditions = {
      textEmbeds: graph.input("textEmbeds", "float32", [batchSize, pooled]),
      timeIds: graph.input("timeIds", "float32", [batchSize, 6]),
    };
  }
  return values;
}

/** The tensors for {@link unetInputs}, by name. Timesteps become float32; a single one is repeated. */
export function unetFeeds(inputs: UNetInputs): Record<string, Tensor> {
  const batch = inputs.latents.shape[0]!;
  const { data } = inputs.timesteps;
  const timesteps = Float32Array.from({ length: batch }, (_, i) => Number(data[data.length === 1 ? 0 : i]));
  const feeds: Record<string, Tensor> = {
    latents: inputs.latents,
    timesteps: tensor(timesteps, [batch]),
    encoderHiddenStates: inputs.encoderHiddenStates,
  };
  if (inputs.addedConditions) {
    feeds.textEmbeds = inputs.addedConditions.textEmbeds;
    feeds.timeIds = inputs.addedConditions.timeIds;
  }
  return feeds;
}

/** Checks tensors against the configuration and gives the shape to build for. */
export function unetShapeOf(inputs: UNetInputs, config: UNet2DConditionConfig): UNetShape {
  const { latents, timesteps, encoderHiddenStates: states, addedConditions } = inputs;
  const [batchSize, channels, height, width] = latents.shape;
  const problem = (rule: string) => new ShapeError(`UNet2DConditionModel: ${rule}.`);
  if (latents.shape.length !== 4 || channels !== config.in_channels) {
    throw problem(`latents must be [B, ${config.in_channels}, H, W]; got [${latents.shape.join(",")}]`);
  }
  if (timesteps.size !== 1 && timesteps.size !== batchSize) {
    throw problem(`timesteps must be [${batchSize}]; got [${timesteps.shape.join(",")}]`);
  }
  if (states.shape.length !== 3 || states.shape[0] !== batchSize || states.shape[2] !== config.cross_attention_dim) {
    const expected = `[${batchSize}, T, ${config.cross_attention_dim}]`;
    throw problem(`encoderHiddenStates must be ${expected} (cross_attention_dim); got [${states.shape.join(",")}]`);
  }
  if ((config.addition_embed_type === "text_time") !== (addedConditions !== undefined)) {
    throw problem(
      addedConditions
        ? "this checkpoint takes no addedConditions (addition_embed_type is null)"
        : "this checkpoint needs addedConditions { textEmbeds, timeIds } (addition_embed_type is text_time)",
    );
  }
  return { batchSize: batchSize!, height: height!, width: width!, tokens: states.shape[1]! };
}

/** The UNet as a function from Values to Values. @returns `[B, out_channels, H, W]`. */
export function unet(model: Scope, inputs: UNetValues, config: UNet2DConditionConfig): Value {
  const { blocks } = config;
  const last = blocks.length - 1;
  const context = inputs.encoderHiddenStates;
  const timeEmbedding = embedTime(model, inputs, config);
  const resnet = { groups: config.norm_num_groups, epsilon: config.norm_eps, timeEmbedding };
  const attend = (scope: Scope, x: Value, block: (typeof blocks)[number]): Value =>
    transformer2d(scope, x, context, {
      heads: block.heads,
      layers: block.transformerLayers,
      groups: config.norm_num_groups,
      useLinearProjection: config.use_linear_projection,
    });

  let x = conv2d(model.in("conv_in"), inputs.latents, blocks[0]!.channels, 3, { padding: 1 });
  const skips = [x];
  blocks.forEach((block, i) => {
    const scope = model.in("down_blocks").in(i);
    const crosses = config.down_block_types[i] === "CrossAttnDownBlock2D";
    for (let layer = 0; layer < block.layers; layer++) {
      x = resnetBlock(scope.in("resnets").in(layer), x, block.channels, resnet);
      if (crosses) x = attend(scope.in("attentions").in(layer), x, block);
      skips.push(x);
    }
    if (i < last) {
      x = downsample(scope.in("downsamplers.0"), x, block.channels, config.downsample_padding);
      skips.push(x);
    }
  });

  const middle = model.in("mid_block");
  x = resnetBlock(middle.in("resnets.0"), x, blocks[last]!.channels, resnet);
  x = attend(middle.in("attentions.0"), x, blocks[last]!);
  x = resnetBlock(middle.in("resnets.1"), x, blocks[last]!.channels, resnet);

  [...blocks].reverse().forEach((block, i) => {
    const scope = model.in("up_blocks").in(i);
    const crosses = config.up_block_types[i] === "CrossAttnUpBlock2D";
    for (let layer = 0; layer <= block.layers; layer++) {
      x = resnetBlock(scope.in("resnets").in(layer), ops.concat([x, skips.pop()!], 1), block.channels, resnet);
      if (crosses) x = attend(scope.in("attentions").in(layer), x, block);
    }
    if (i < last) {
      const [, , height, width] = skips.at(-1)!.shape;
      x = upsample(scope.in("upsamplers.0"), x, block.channels, [height!, width!]);
    }
  });

  const normalized = groupNorm(model.in("conv_norm_out"), x, config.norm_num_groups, config.norm_eps);
  return conv2d(model.in("conv_out"), ops.silu(normalized), config.out_channels, 3, { padding: 1 });
}

/** Timesteps (and SDXL's sizes and pooled text) to `[B, time_embed_dim]`. */
function embedTime(model: Scope, inputs: UNetValues, config: UNet2DConditionConfig): Value {
  const options = { flipSinToCos: config.flip_sin_to_cos, frequencyShift: config.freq_shift };
  const features = config.time_embedding_dim ?? config.blocks[0]!.channels * 4;
  const embed = (scope: Scope, x: Value): Value =>
    linear(scope.in("linear_2"), ops.silu(linear(scope.in("linear_1"), x, features)), features);
  const time = embed(
    model.in("time_embedding"),
    sinusoidalEmbedding(inputs.timesteps, config.blocks[0]!.channels, options),
  );
  if (!inputs.addedConditions) return time;
  const { textEmbeds, timeIds } = inputs.addedConditions;
  const sizes = sinusoidalEmbedding(timeIds, config.addition_time_embed_dim!, options);
  const joined = ops.concat([textEmbeds, ops.reshape(sizes, [timeIds.shape[0]!, -1])], -1);
  return ops.add(time, embed(model.in("add_embedding"), joined));
}
