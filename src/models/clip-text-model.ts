// CLIPTextModel: the causal transformer that turns a prompt's tokens into the states a diffusion model attends to.

import { z } from "zod";
import { ShapeError } from "../errors.js";
import type { Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import { embedding, layerNorm, linear, ModelWeights, type Scope } from "../nn/index.js";
import type { RuntimeOptions } from "../runtime/index.js";
import type { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { freshWeights, Model, parseConfig } from "./model.js";
import { loadPretrained, type PretrainedOptions } from "./pretrained.js";

const PREFIX = "text_model";
/** Standard deviation of fresh embeddings; transformers' initializer_range. */
const EMBEDDING_STD = 0.02;

const count = z.int().positive();
/** Known to transformers, without effect on what is computed here. */
const ignored = z.unknown().optional();

const schema = z
  .strictObject({
    vocab_size: count.default(49408),
    hidden_size: count.default(512),
    intermediate_size: count.default(2048),
    num_hidden_layers: count.default(12),
    num_attention_heads: count.default(8),
    max_position_embeddings: count.default(77),
    hidden_act: z.enum(["quick_gelu", "gelu"]).default("quick_gelu"),
    layer_norm_eps: z.number().positive().default(1e-5),
    model_type: z.enum(["clip_text_model"]).default("clip_text_model"),
    architectures: ignored,
    attention_dropout: ignored,
    dropout: ignored,
    initializer_factor: ignored,
    initializer_range: ignored,
    bos_token_id: ignored,
    eos_token_id: ignored,
    pad_token_id: ignored,
    projection_dim: ignored,
    torch_dtype: ignored,
    dtype: ignored,
    transformers_version: ignored,
  })
  .refine((config) => config.hidden_size % config.num_attention_heads === 0, {
    path: ["num_attention_heads"],
    error: "must divide hidden_size",
  });

/** transformers' CLIPTextConfig, as far as it is supported. */
export type CLIPTextConfig = z.output<typeof schema>;

/**
 * CLIP's text encoder.
 *
 * @see Radford et al. 2021, arXiv:2103.00020
 */
export class CLIPTextModel extends Model<CLIPTextConfig> {
  /**
   * Loads `config.json` and `model.safetensors` from a folder; `subfolder` is "text_encoder" unless given.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<CLIPTextModel> {
    const request = { subfolder: "text_encoder", expectedClass: "CLIPTextModel", weightsName: "model" };
    const loaded = await loadPretrained(dir, options, request);
    const config = parseConfig(schema, loaded.config, loaded.source);
    return new CLIPTextModel(config, withPrefix(loaded.weights), loaded.runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): CLIPTextModel {
    const parsed = parseConfig(schema, config, "CLIPTextModel");
    const weights = freshWeights((scope) => {
      clipTextModel(scope, scope.graph.input("input_ids", "int64", [1, 1]), parsed);
    }, generator);
    return new CLIPTextModel(parsed, weights, runtime);
  }

  /**
   * The last hidden state after the final normalization.
   *
   * @param inputIds - `[B, L]` with L up to `max_position_embeddings`; ids in 0 … vocab_size−1.
   * @returns `[B, L, hidden_size]`.
   * @throws {ShapeError} If the shape or an id breaks these limits.
   */
  async encode(inputIds: Tensor<"int64">): Promise<Tensor<"float32">> {
    const { shape, data } = inputIds;
    if (inputIds.dtype !== "int64" || shape.length !== 2) {
      throw new ShapeError(
        `CLIPTextModel.encode: inputIds must be int64 [B, L]; got ${inputIds.dtype}[${shape.join(",")}].`,
      );
    }
    const wrong = data.find((id) => id < 0n || id >= this.config.vocab_size);
    if (wrong !== undefined) {
      throw new ShapeError(
        `CLIPTextModel.encode: ids must be in 0 … ${this.config.vocab_size - 1} (vocab_size); got ${wrong}. ` +
          "Use the tokenizer that came with this model.",
      );
    }
    const compiled = await this.compiled(`encode ${shape.join("x")}`, (graph) => {
      const ids = graph.input("input_ids", "int64", shape);
      graph.output("last_hidden_state", clipTextModel(this.frozenScope(graph), ids, this.config));
    });
    return (await compiled.run({ input_ids: inputIds })).last_hidden_state as Tensor<"float32">;
  }
}

/**
 * Token and position embeddings, `num_hidden_layers` causal transformer layers, and a final normalization.
 *
 * B batch, L tokens.
 *
 * @param inputIds - int64 `[B, L]`.
 * @returns float32 `[B, L, hidden_size]`.
 * @throws {ShapeError} If L exceeds `max_position_embeddings`.
 */
export function clipTextModel(scope: Scope, inputIds: Value, config: CLIPTextConfig): Value {
  const { hidden_size: hidden, layer_norm_eps: epsilon, max_position_embeddings: limit } = config;
  const length = inputIds.shape[1]!;
  if (inputIds.rank !== 2 || length < 1 || length > limit) {
    throw new ShapeError(
      `CLIPTextModel: the input must be [B, L] with 1 to ${limit} tokens (max_position_embeddings); got ${inputIds}.`,
    );
  }
  const model = scope.in(PREFIX);
  const embeddings = model.in("embeddings");
  const tokens = embedding(embeddings.in("token_embedding"), inputIds, config.vocab_size, hidden, EMBEDDING_STD);
  const positions = embeddings
    .in("position_embedding")
    .parameter("weight", [limit, hidden], { kind: "normal", std: EMBEDDING_STD });
  let x = ops.add(tokens, ops.slice(positions, 0, 0, length));
  for (let index = 0; index < config.num_hidden_layers; index++) {
    const layer = model.in(`encoder.layers.${index}`);
    x = ops.add(x, selfAttention(layer.in("self_attn"), layerNorm(layer.in("layer_norm1"), x, epsilon), config));
    x = ops.add(x, feedForward(layer.in("mlp"), layerNorm(layer.in("layer_norm2"), x, epsilon), config));
  }
  return layerNorm(model.in("final_layer_norm"), x, epsilon);
}

function selfAttention(scope: Scope, x: Value, config: CLIPTextConfig): Value {
  const width = config.hidden_size;
  const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map((name) => linear(scope.in(name), x, width)) as [
    Value,
    Value,
    Value,
  ];
  const attended = ops.attention(q, k, v, { heads: config.num_attention_heads, causal: true });
  return linear(scope.in("out_proj"), attended, width);
}

function feedForward(scope: Scope, x: Value, config: CLIPTextConfig): Value {
  const inner = linear(scope.in("fc1"), x, config.intermediate_size);
  const activated = config.hidden_act === "gelu" ? ops.gelu(inner) : ops.quickGelu(inner);
  return linear(scope.in("fc2"), activated, config.hidden_size);
}

/** transformers 5 saves without the prefix that all older checkpoints have. */
function withPrefix(loaded: ModelWeights): ModelWeights {
  const names = [...loaded.weights.keys()];
  if (!names.includes("final_layer_norm.weight")) return loaded;
  return new ModelWeights(
    new Map([...loaded.weights].map(([name, weight]) => [`${PREFIX}.${name}`, weight])),
    loaded.source,
  );
}
