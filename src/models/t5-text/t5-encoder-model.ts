// T5EncoderModel: the encoder of T5, which Stable Diffusion 3 and FLUX.1 read prompts with. The decoder is not supported.

import { z } from "zod";
import { ShapeError } from "../../errors.js";
import type { Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { embedding, linear, ModelWeights, rmsNorm, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { biasedAttention } from "../biased-attention.js";
import { depth, width } from "../config-limits.js";
import { freshWeights, Model } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";
import { checkedTokenIds } from "../token-ids.js";
import { positionBuckets } from "./t5-position-buckets.js";

/** Scores of so many pairs of tokens are made at once. */
const MAX_TOKENS = 4096;

/** Known to transformers, without effect on what is computed here. */
const ignored = z.unknown().optional();

const schema = z
  .strictObject({
    vocab_size: width.default(32128),
    d_model: width.default(512),
    d_kv: width.default(64),
    d_ff: width.default(2048),
    num_layers: depth.min(1).default(6),
    num_heads: width.default(8),
    relative_attention_num_buckets: z.int().min(4).max(4096).default(32),
    relative_attention_max_distance: z.int().min(2).max(1e6).default(128),
    layer_norm_epsilon: z.number().positive().default(1e-6),
    /** v1.0 has "relu", v1.1 "gated-gelu", which transformers takes for the approximation by tanh. */
    feed_forward_proj: z.enum(["relu", "gated-gelu"]).default("relu"),
    dense_act_fn: z.enum(["relu", "gelu_new"]).optional(),
    is_gated_act: z.boolean().optional(),
    model_type: z.literal("t5").default("t5"),
    is_decoder: z.literal(false).default(false),
    architectures: ignored,
    bos_token_id: ignored,
    classifier_dropout: ignored,
    decoder_start_token_id: ignored,
    dropout_rate: ignored,
    dtype: ignored,
    eos_token_id: ignored,
    initializer_factor: ignored,
    is_encoder_decoder: ignored,
    n_positions: ignored,
    num_decoder_layers: ignored,
    output_past: ignored,
    pad_token_id: ignored,
    scale_decoder_outputs: ignored,
    task_specific_params: ignored,
    tie_word_embeddings: ignored,
    torch_dtype: ignored,
    transformers_version: ignored,
    use_cache: ignored,
  })
  .refine((config) => (config.dense_act_fn ?? activationOf(config)) === activationOf(config), {
    path: ["dense_act_fn"],
    error: "must be what feed_forward_proj says (gelu_new for gated-gelu)",
  })
  .refine((config) => (config.is_gated_act ?? isGated(config)) === isGated(config), {
    path: ["is_gated_act"],
    error: "must be what feed_forward_proj says",
  })
  .refine((config) => config.relative_attention_max_distance > config.relative_attention_num_buckets / 4, {
    path: ["relative_attention_max_distance"],
    error: "must be above a quarter of relative_attention_num_buckets",
  });

const isGated = ({ feed_forward_proj: projection }: { feed_forward_proj: string }): boolean =>
  projection === "gated-gelu";
const activationOf = (config: { feed_forward_proj: string }): string => (isGated(config) ? "gelu_new" : "relu");

/** transformers' T5Config, as far as an encoder has it and it is supported. */
export type T5Config = z.output<typeof schema>;

const CLASS: ModelClass<T5Config> = {
  name: "T5EncoderModel",
  // A whole T5 has the same encoder; what it has beside that is left out, as in transformers.
  alsoNamed: ["T5ForConditionalGeneration", "T5Model"],
  subfolder: "text_encoder_2",
  weightsName: "model",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    t5Encoder(scope, scope.graph.input("input_ids", "int64", [1, 1]), config);
  },
  currentNames: withSharedName,
  takesFewBits: true,
};

/**
 * T5's encoder.
 *
 * @see Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202 (the gated form)
 */
export class T5EncoderModel extends Model<T5Config> {
  /**
   * Loads `config.json` and `model.safetensors` from a folder; `subfolder` is "text_encoder_2" unless given (FLUX.1's).
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<T5EncoderModel> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new T5EncoderModel(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): T5EncoderModel {
    const parsed = CLASS.parse(config, CLASS.name);
    return new T5EncoderModel(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  /**
   * The last hidden state after the final normalization. Nothing is hidden: padding is read as it stands, as the pipelines
   * of diffusers have it.
   *
   * @param inputIds - int64 `[B, L]`, in 0 … vocab_size−1.
   * @returns `[B, L, d_model]`.
   * @throws {ShapeError} If the shape or an id breaks these limits.
   */
  async encode(inputIds: Tensor): Promise<Tensor<"float32">> {
    const input_ids = checkedTokenIds("T5EncoderModel.encode", inputIds, this.config.vocab_size);
    const { shape } = input_ids;
    const build = (scope: Scope) => {
      scope.graph.output("states", t5Encoder(scope, scope.graph.input("input_ids", "int64", shape), this.config));
    };
    const result = await this.runWith(undefined, `encode ${shape.join("x")}`, build, { input_ids });
    return result.states as Tensor<"float32">;
  }
}

/**
 * Token embeddings, `num_layers` layers of attention and feed-forward, and a final normalization.
 *
 * @param inputIds - `[B, L]`.
 * @returns float32 `[B, L, d_model]`.
 */
export function t5Encoder(scope: Scope, inputIds: Value, config: T5Config): Value {
  const { num_layers: layers, layer_norm_epsilon: epsilon } = config;
  const tokens = inputIds.shape[1]!;
  if (tokens > MAX_TOKENS) {
    throw new ShapeError(
      `T5EncoderModel: the input must be [B, L] with at most ${MAX_TOKENS} tokens; got ${inputIds}.`,
    );
  }
  const encoder = scope.in("encoder");
  let x = embedding(scope.in("shared"), inputIds, config.vocab_size, config.d_model);
  const bias = distanceBias(encoder.in("block.0.layer.0.SelfAttention.relative_attention_bias"), tokens, config);
  for (let index = 0; index < layers; index++) {
    const [first, second] = [0, 1].map((layer) => encoder.in(`block.${index}.layer.${layer}`)) as [Scope, Scope];
    const attended = selfAttention(
      first.in("SelfAttention"),
      rmsNorm(first.in("layer_norm"), x, epsilon),
      bias,
      config,
    );
    x = ops.add(x, attended);
    x = ops.add(x, feedForward(second.in("DenseReluDense"), rmsNorm(second.in("layer_norm"), x, epsilon), config));
  }
  return rmsNorm(encoder.in("final_layer_norm"), x, epsilon);
}

/** The first layer's table serves all layers: `[1, heads, L, L]`. */
function distanceBias(scope: Scope, tokens: number, config: T5Config): Value {
  const { relative_attention_num_buckets: buckets, relative_attention_max_distance: maxDistance } = config;
  const table = positionBuckets(tokens, { buckets, maxDistance });
  const indices = scope.graph.constant(tensor(table, [tokens, tokens], "int64"));
  const bias = embedding(scope, indices, buckets, config.num_heads);
  return ops.reshape(ops.transpose(bias, [2, 0, 1]), [1, config.num_heads, tokens, tokens]);
}

/** Scores are not divided by √D: T5's weights are drawn so that they need not be. */
function selfAttention(scope: Scope, x: Value, bias: Value, config: T5Config): Value {
  const { num_heads: heads, d_kv: features } = config;
  const project = (name: string) => linear(scope.in(name), x, heads * features, { bias: false });
  const attended = biasedAttention(project("q"), project("k"), project("v"), { heads, scale: 1, bias });
  return linear(scope.in("o"), attended, config.d_model, { bias: false });
}

function feedForward(scope: Scope, x: Value, config: T5Config): Value {
  const project = (name: string) => linear(scope.in(name), x, config.d_ff, { bias: false });
  const inner = isGated(config) ? ops.mul(ops.geluTanh(project("wi_0")), project("wi_1")) : ops.relu(project("wi"));
  return linear(scope.in("wo"), inner, config.d_model, { bias: false });
}

/** The table of tokens has two names; files may have either. */
function withSharedName(loaded: ModelWeights): ModelWeights {
  const { weights } = loaded;
  const table = weights.get("encoder.embed_tokens.weight");
  if (!table || weights.has("shared.weight")) return loaded;
  const renamed = [...weights].filter(([name]) => name !== "encoder.embed_tokens.weight");
  return new ModelWeights(new Map([...renamed, ["shared.weight", table]]), loaded.source);
}
