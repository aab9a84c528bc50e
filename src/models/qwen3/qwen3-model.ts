// Qwen3Model: the language model whose hidden states FLUX.2-klein and Z-Image read prompts by. It writes no text here.

import { z } from "zod";
import { ConfigError, ShapeError } from "../../errors.js";
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

/** Known to transformers, without effect on what is computed here. */
const ignored = z.unknown().optional();
const theta = z.number().positive();

const schema = z
  .strictObject({
    vocab_size: width.default(151936),
    hidden_size: width.default(4096),
    intermediate_size: width.default(22016),
    num_hidden_layers: depth.min(1).default(32),
    num_attention_heads: width.default(32),
    num_key_value_heads: width.nullable().default(32),
    head_dim: width.default(128),
    hidden_act: z.literal("silu").default("silu"),
    max_position_embeddings: width.default(32768),
    rms_norm_eps: z.number().positive().default(1e-6),
    attention_bias: z.boolean().default(false),
    rope_theta: theta.optional(),
    rope_scaling: z.null().optional(),
    rope_parameters: z
      .strictObject({ rope_type: z.literal("default").default("default"), rope_theta: theta.default(10_000) })
      .nullish(),
    use_sliding_window: z.literal(false).default(false),
    layer_types: z.array(z.literal("full_attention")).nullish(),
    model_type: z.literal("qwen3").default("qwen3"),
    architectures: ignored,
    attention_dropout: ignored,
    bos_token_id: ignored,
    dtype: ignored,
    eos_token_id: ignored,
    initializer_range: ignored,
    max_window_layers: ignored,
    pad_token_id: ignored,
    sliding_window: ignored,
    tie_word_embeddings: ignored,
    torch_dtype: ignored,
    transformers_version: ignored,
    use_cache: ignored,
  })
  .refine((config) => config.num_attention_heads % keyHeadsOf(config) === 0, {
    path: ["num_key_value_heads"],
    error: "must divide num_attention_heads",
  })
  .refine((config) => config.head_dim % 2 === 0, { path: ["head_dim"], error: "must be even" });

const keyHeadsOf = (config: { num_key_value_heads: number | null; num_attention_heads: number }): number =>
  config.num_key_value_heads ?? config.num_attention_heads;

/** transformers' Qwen3Config, as far as it is supported. */
export type Qwen3Config = z.output<typeof schema>;

const CLASS: ModelClass<Qwen3Config> = {
  name: "Qwen3Model",
  // The model of language has the same layers, under "model.", and a layer that gives the next token, which is left out.
  alsoNamed: ["Qwen3ForCausalLM"],
  subfolder: "text_encoder",
  weightsName: "model",
  parse: (config, source) => parseConfig(schema, config, source),
  build(scope, config) {
    const { graph } = scope;
    const inputs = {
      inputIds: graph.input("input_ids", "int64", [1, 1]),
      hides: graph.input("hides", "float32", [1, 1]),
    };
    const layers = qwen3States(scope, inputs, config, config.num_hidden_layers);
    rmsNorm(scope.in("norm"), layers.at(-1)!, config.rms_norm_eps);
  },
  currentNames: withoutPrefix,
  takesFewBits: true,
};

/** Added to the score of a key that a query may not see; far below any score, and finite. */
const HIDDEN = -1e9;

/**
 * Qwen3, as far as a hidden state.
 *
 * @see Yang et al. 2025, arXiv:2505.09388
 */
export class Qwen3Model extends Model<Qwen3Config> {
  /**
   * Loads `config.json` and `model.safetensors`, or its shards, from a folder; `subfolder` is "text_encoder" unless given.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<Qwen3Model> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new Qwen3Model(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): Qwen3Model {
    const parsed = CLASS.parse(config, CLASS.name);
    return new Qwen3Model(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  /**
   * Hidden states: 0 the embeddings, k the k-th layer's output, and the last layer's after the final normalization, as
   * transformers numbers them. Layers behind the last one that is asked for are not run.
   *
   * @param inputIds - int64 `[B, L]`, in 0 … vocab_size−1.
   * @param options - Which, and what is padding.
   * @param options.layers - Numbers in 0 … num_hidden_layers; negative ones count from behind, −1 the last.
   * @param options.attentionMask - int64 `[B, L]`: 1 for tokens, 0 for padding, which stands behind them. Default: no padding.
   * @returns One `[B, L, hidden_size]` for each of `layers`.
   * @throws {ShapeError} If the shape or an id breaks the limits, or padding stands elsewhere.
   * @throws {ConfigError} If the model has no such layer.
   */
  async hiddenStates(
    inputIds: Tensor,
    { layers, attentionMask }: { layers: readonly number[]; attentionMask?: Tensor },
  ): Promise<Tensor<"float32">[]> {
    const where = "Qwen3Model.hiddenStates";
    const { num_hidden_layers: total, vocab_size: vocabulary, max_position_embeddings: limit } = this.config;
    const input_ids = checkedTokenIds(where, inputIds, vocabulary);
    const { shape } = input_ids;
    if (shape[1]! > limit) {
      throw new ShapeError(`${where}: at most ${limit} tokens (max_position_embeddings); got ${shape[1]}.`);
    }
    const wanted = layers.map((layer) => {
      const counted = layer < 0 ? total + 1 + layer : layer;
      if (Number.isInteger(counted) && counted >= 0 && counted <= total) return counted;
      throw new ConfigError(
        `${where}: layers must be integers in 0 … ${total}, or negative from behind; got ${layer}.`,
      );
    });
    const hides = hidden(where, shape as [number, number], attentionMask);
    const build = (scope: Scope) => {
      const { graph } = scope;
      const inputs = {
        inputIds: graph.input("input_ids", "int64", shape),
        hides: graph.input("hides", "float32", shape),
      };
      const states = qwen3States(scope, inputs, this.config, Math.max(...wanted));
      for (const layer of new Set(wanted)) {
        const state = states[layer]!;
        const isLast = layer === total;
        graph.output(`layer_${layer}`, isLast ? rmsNorm(scope.in("norm"), state, this.config.rms_norm_eps) : state);
      }
    };
    const key = `states ${shape.join("x")} ${wanted.join()}`;
    const result = await this.runWith(undefined, key, build, { input_ids, hides });
    return wanted.map((layer) => result[`layer_${layer}`] as Tensor<"float32">);
  }
}

/** What is added to the scores of each token's key: 0, or for padding {@link HIDDEN}. */
function hidden(where: string, [batch, tokens]: [number, number], mask: Tensor | undefined): Tensor<"float32"> {
  const result = tensor(new Float32Array(batch * tokens), [batch, tokens]);
  if (!mask) return result;
  if (mask.dtype !== "int64" || mask.shape.join() !== [batch, tokens].join()) {
    throw new ShapeError(
      `${where}: attentionMask must be int64 [${batch},${tokens}]; got ${mask.dtype}[${mask.shape.join(",")}].`,
    );
  }
  for (let row = 0; row < batch; row++) {
    const own = Array.from({ length: tokens }, (_, at) => Number(mask.data[row * tokens + at]));
    const length = own.indexOf(0) < 0 ? tokens : own.indexOf(0);
    if (length === 0 || own.some((value, at) => value !== (at < length ? 1 : 0))) {
      throw new ShapeError(
        `${where}: attentionMask must be ones and behind them zeros, in every row; row ${row} is not.`,
      );
    }
    result.data.fill(HIDDEN, row * tokens + length, (row + 1) * tokens);
  }
  return result;
}

/** What the model takes. B batch, L tokens. */
interface Qwen3Values {
  /** `[B, L]`. */
  inputIds: Value;
  /** Added to the scores of a key, `[B, L]`. */
  hides: Value;
}

/** The embeddings and the outputs of so many layers, before the final normalization: layers + 1 of `[B, L, hidden_size]`. */
function qwen3States(scope: Scope, { inputIds, hides }: Qwen3Values, config: Qwen3Config, layers: number): Value[] {
  const { hidden_size: features, rms_norm_eps: epsilon } = config;
  const [batch, tokens] = inputIds.shape as [number, number];
  const { graph } = scope;
  let x = embedding(scope.in("embed_tokens"), inputIds, config.vocab_size, features);
  const causal = new Float32Array(tokens * tokens);
  for (let query = 0; query < tokens; query++) causal.fill(HIDDEN, query * tokens + query + 1, (query + 1) * tokens);
  const bias = ops.add(
    graph.constant(tensor(causal, [1, 1, tokens, tokens])),
    ops.reshape(hides, [batch, 1, 1, tokens]),
  );
  const [cos, sin] = rotaryAngles(tokens, config).map((values) => graph.constant(values)) as [Value, Value];
  const states = [x];
  for (let index = 0; index < layers; index++) {
    const layer = scope.in(`layers.${index}`);
    const attention = layer.in("self_attn");
    x = ops.add(
      x,
      selfAttention(attention, rmsNorm(layer.in("input_layernorm"), x, epsilon), { bias, cos, sin }, config),
    );
    x = ops.add(x, feedForward(layer.in("mlp"), rmsNorm(layer.in("post_attention_layernorm"), x, epsilon), config));
    states.push(x);
  }
  return states;
}

function selfAttention(
  scope: Scope,
  x: Value,
  { bias, cos, sin }: { bias: Value; cos: Value; sin: Value },
  config: Qwen3Config,
): Value {
  const { num_attention_heads: heads, head_dim: width, rms_norm_eps: epsilon, attention_bias: hasBias } = config;
  const keyHeads = keyHeadsOf(config);
  const [batch, tokens] = x.shape as [number, number];
  const project = (name: string, count: number) => linear(scope.in(name), x, count * width, { bias: hasBias });
  /** Normalized head by head, and turned by the token's position. */
  const placed = (name: "q" | "k", count: number) => {
    const split = ops.reshape(project(`${name}_proj`, count), [batch, tokens, count, width]);
    const normalized = rmsNorm(scope.in(`${name}_norm`), split, epsilon);
    const joined = ops.reshape(normalized, [batch, tokens, count * width]);
    return ops.rotary(joined, cos, sin, { heads: count, pairs: "halves" });
  };
  const attended = biasedAttention(placed("q", heads), placed("k", keyHeads), project("v_proj", keyHeads), {
    heads,
    keyHeads,
    bias,
  });
  return linear(scope.in("o_proj"), attended, config.hidden_size, { bias: hasBias });
}

function feedForward(scope: Scope, x: Value, config: Qwen3Config): Value {
  const project = (name: string) => linear(scope.in(name), x, config.intermediate_size, { bias: false });
  const inner = ops.swiglu(project("gate_proj"), project("up_proj"));
  return linear(scope.in("down_proj"), inner, config.hidden_size, { bias: false });
}

/** Cosines and sines of position · theta^(−2i/D), `[L, D/2]` each; in float32, as torch computes the angles. */
function rotaryAngles(tokens: number, config: Qwen3Config): [Tensor<"float32">, Tensor<"float32">] {
  const base = config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10_000;
  const half = config.head_dim / 2;
  const { fround } = Math;
  const frequencies = Array.from({ length: half }, (_, i) =>
    fround(1 / fround(base ** fround((2 * i) / config.head_dim))),
  );
  const angles = Float32Array.from({ length: tokens * half }, (_, i) => Math.floor(i / half) * frequencies[i % half]!);
  return [tensor(angles.map(Math.cos), [tokens, half]), tensor(angles.map(Math.sin), [tokens, half])];
}

/** A model of language has its layers under "model.". */
function withoutPrefix(loaded: ModelWeights): ModelWeights {
  const entries = [...loaded.weights].map(([name, weight]) => [name.replace(/^model\./, ""), weight] as const);
  return new ModelWeights(new Map(entries), loaded.source);
}
