// CLIPTextModel: the causal transformer that turns a prompt's tokens into the states a diffusion model attends to.
// The variant with a projection, SDXL's second encoder, is in clip-text-model-with-projection.ts.

import { z } from "zod";
import { ConfigError, ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import { embedding, type GraphAdapters, layerNorm, linear, ModelWeights, type Scope } from "../../nn/index.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { Generator } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { depth, width } from "../config-limits.js";
import { freshWeights, Model } from "../model.js";
import { loadModel, type ModelClass, type PretrainedOptions } from "../pretrained.js";
import {
  type AddedTokenValues,
  type ClipInputOptions,
  type ClipTextValues,
  checkedIds,
  clipTextFeeds,
  clipTextInputs,
} from "./clip-text-inputs.js";

const PREFIX = "text_model";
/** Standard deviation of fresh embeddings; transformers' initializer_range. */
const EMBEDDING_STD = 0.02;

/** Known to transformers, without effect on what is computed here. */
const ignored = z.unknown().optional();

/** Configurations of both text models. */
export const clipTextSchema = z
  .strictObject({
    vocab_size: width.default(49408),
    hidden_size: width.default(512),
    intermediate_size: width.default(2048),
    num_hidden_layers: depth.min(1).default(12),
    num_attention_heads: width.default(8),
    max_position_embeddings: width.default(77),
    hidden_act: z.enum(["quick_gelu", "gelu"]).default("quick_gelu"),
    layer_norm_eps: z.number().positive().default(1e-5),
    model_type: z.enum(["clip_text_model"]).default("clip_text_model"),
    architectures: ignored,
    attention_dropout: ignored,
    dropout: ignored,
    initializer_factor: ignored,
    initializer_range: ignored,
    eos_token_id: z.int().nonnegative().default(49407),
    bos_token_id: ignored,
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
export type CLIPTextConfig = z.output<typeof clipTextSchema>;

const CLASS: ModelClass<CLIPTextConfig> = {
  name: "CLIPTextModel",
  subfolder: "text_encoder",
  weightsName: "model",
  parse: (config, source) => parseConfig(clipTextSchema, config, source),
  build(scope, config) {
    clipTextModel(scope, { inputIds: scope.graph.input("input_ids", "int64", [1, 1]) }, config);
  },
  currentNames: withPrefix,
};

/** Options of `encodeAll`. */
export interface ClipHiddenStateOptions {
  /** How many layers before the end `hiddenState` is taken; 0 (default) the last one's output … num_hidden_layers. */
  hiddenLayersFromEnd?: number;
  /** Whether `hiddenState` goes through the final normalization; true by default. */
  finalNorm?: boolean;
  /** Adapters on the encoder's linear layers. */
  adapters?: GraphAdapters | undefined;
}

/** What `encodeAll` returns; B batch, L tokens, C = hidden_size. */
export interface ClipTextStates {
  /** The last layer's output after the final normalization, `[B, L, C]`. */
  lastHiddenState: Tensor<"float32">;
  /** The layer's output that the options name, `[B, L, C]`. */
  hiddenState: Tensor<"float32">;
  /** The last hidden state at the end token, `[B, C]`; with a projection `[B, projection_dim]`. */
  pooled: Tensor<"float32">;
}

/**
 * CLIP's text encoder.
 *
 * @see Radford et al. 2021, arXiv:2103.00020
 */
export class CLIPTextModel<Config extends CLIPTextConfig = CLIPTextConfig> extends Model<Config> {
  /**
   * Loads `config.json` and `model.safetensors` from a folder; `subfolder` is "text_encoder" unless given.
   *
   * @throws {ConfigError} If the configuration asks for what is not supported.
   * @throws {FormatError} If a file or a weight is missing or malformed, or a weight is there that the model does not use.
   */
  static async fromPretrained(dir: string, options: PretrainedOptions = {}): Promise<CLIPTextModel> {
    const { config, weights, runtime } = await loadModel(dir, options, CLASS);
    return new CLIPTextModel(config, weights, runtime);
  }

  /** A model with random weights. @throws {ConfigError} If the configuration asks for what is not supported. */
  static fromConfig(config: unknown, generator: Generator, runtime: RuntimeOptions = {}): CLIPTextModel {
    const parsed = CLASS.parse(config, CLASS.name);
    return new CLIPTextModel(
      parsed,
      freshWeights((scope) => CLASS.build(scope, parsed), generator),
      runtime,
    );
  }

  /**
   * Vectors of tokens behind the vocabulary, `[N, hidden_size]`: textual inversion's, which the ids vocab_size …
   * vocab_size + N − 1 mean. Their values may change in place.
   */
  addedVectors: Tensor<"float32"> | undefined;

  /** How many ids there are, those of {@link addedVectors} included. */
  get vocabularySize(): number {
    return this.config.vocab_size + (this.addedVectors?.shape[0] ?? 0);
  }

  /**
   * The last hidden state after the final normalization.
   *
   * @param inputIds - `[B, L]` with L up to `max_position_embeddings`; ids in 0 … vocab_size−1, and those of
   *   {@link addedVectors}.
   * @returns `[B, L, hidden_size]`.
   * @throws {ShapeError} If the shape or an id breaks these limits.
   */
  async encode(
    inputIds: Tensor<"int64">,
    { adapters }: Pick<ClipHiddenStateOptions, "adapters"> = {},
  ): Promise<Tensor<"float32">> {
    const feeds = this.feedsOf(inputIds);
    const [batchSize, tokens] = inputIds.shape as [number, number];
    const build = (scope: Scope) => {
      const values = clipTextInputs(scope.graph, { batchSize, tokens, vectors: this.vectorsInput(scope) });
      scope.graph.output("last_hidden_state", clipTextModel(scope, values, this.config));
    };
    const result = await this.runWith(adapters, `encode ${this.keyOf(inputIds)}`, build, { ...feeds, ...this.vectors });
    return result.last_hidden_state as Tensor<"float32">;
  }

  /** The encoder as a function from Values to Values: what adapters are made for. @returns `[B, L, hidden_size]`. */
  build(scope: Scope, inputIds: Value): Value {
    return clipTextModel(scope, { inputIds }, this.config);
  }

  /** Declares what {@link buildStates} takes. */
  declareInputs(graph: Graph, options: ClipInputOptions): ClipTextValues {
    return clipTextInputs(graph, options);
  }

  /**
   * The tensors for {@link declareInputs}, by name.
   *
   * @throws {ShapeError} If the ids are not int64 `[B, L]`, or one is not known.
   */
  feedsOf(inputIds: Tensor, { pooled = false, prefix = "" }: Pick<ClipInputOptions, "pooled" | "prefix"> = {}) {
    const added = this.addedVectors?.shape[0] ?? 0;
    return clipTextFeeds(checkedIds(inputIds, this.vocabularySize), this.config, { added, pooled, prefix });
  }

  /**
   * All that pipelines take from a text encoder, as a function from Values to Values.
   *
   * @returns As {@link encodeAll}; `pooled` only where the inputs have `ends`. Layers that neither depends on are not built.
   * @throws {ConfigError} If the model has no such layer.
   */
  buildStates(
    scope: Scope,
    inputs: ClipTextValues,
    options: ClipHiddenStateOptions = {},
  ): { last?: Value; hidden: Value; pooled?: Value } {
    const { hiddenLayersFromEnd: skipped = 0, finalNorm = true } = options;
    const { num_hidden_layers: layers, layer_norm_eps: epsilon, hidden_size: features } = this.config;
    if (!Number.isInteger(skipped) || skipped < 0 || skipped > layers) {
      throw new ConfigError(
        `CLIPTextModel.encodeAll: hiddenLayersFromEnd (clip_skip) must be an integer in 0 … ${layers}; got ${skipped}.`,
      );
    }
    const isLast = skipped === 0 && finalNorm;
    const isWhole = isLast || inputs.ends !== undefined;
    const states = hiddenStates(scope, inputs, this.config, isWhole ? layers : layers - skipped);
    const norm = scope.in(PREFIX).in("final_layer_norm");
    const last = isWhole ? layerNorm(norm, states.at(-1)!, epsilon) : undefined;
    const state = states[layers - skipped]!;
    const hidden = isLast ? last! : finalNorm ? layerNorm(norm, state, epsilon) : state;
    if (!inputs.ends || !last) return { hidden, ...(last && { last }) };
    const ended = ops.reshape(ops.matMul(inputs.ends, last), [last.shape[0]!, features]);
    return { last, hidden, pooled: this.project(scope, ended) };
  }

  /**
   * All that pipelines take from a text encoder, in one pass.
   *
   * diffusers' `clip_skip` = n is `{ hiddenLayersFromEnd: n }` in Stable Diffusion 1 and 2, and
   * `{ hiddenLayersFromEnd: n + 1, finalNorm: false }` in SDXL, where n is 0 when none is given.
   *
   * @param inputIds - As for `encode`.
   * @returns Without options, `hiddenState` is `lastHiddenState`.
   * @throws {ShapeError} If the shape or an id breaks the limits.
   * @throws {ConfigError} If the model has no such layer.
   */
  async encodeAll(inputIds: Tensor<"int64">, options: ClipHiddenStateOptions = {}): Promise<ClipTextStates> {
    const { hiddenLayersFromEnd: skipped = 0, finalNorm = true, adapters } = options;
    const feeds = this.feedsOf(inputIds, { pooled: true });
    const [batchSize, tokens] = inputIds.shape as [number, number];
    const build = (scope: Scope) => {
      const { graph } = scope;
      const vectors = this.vectorsInput(scope);
      const values = clipTextInputs(graph, { batchSize, tokens, pooled: true, vectors });
      const { last, hidden, pooled } = this.buildStates(scope, values, { hiddenLayersFromEnd: skipped, finalNorm });
      graph.output("last_hidden_state", last!);
      graph.output("pooled", pooled!);
      if (hidden !== last) graph.output("hidden_state", hidden);
    };
    const key = `encodeAll ${this.keyOf(inputIds)} ${skipped} ${finalNorm}`;
    const results = await this.runWith(adapters, key, build, { ...feeds, ...this.vectors });
    const { last_hidden_state: lastHiddenState, ...rest } = results as Record<string, Tensor<"float32">>;
    return {
      lastHiddenState: lastHiddenState!,
      hiddenState: rest.hidden_state ?? lastHiddenState!,
      pooled: rest.pooled!,
    };
  }

  /** Vectors of the vocabulary's tokens, `[N, hidden_size]`. @throws {ShapeError} If an id is not known. */
  async tokenVectors(ids: readonly number[]): Promise<Tensor<"float32">> {
    const wanted = checkedIds(tensor(ids, [1, ids.length], "int64"), this.config.vocab_size);
    const { vocab_size: rows, hidden_size: features } = this.config;
    const build = (graph: Graph) => {
      const scope = this.frozenScope(graph).in(`${PREFIX}.embeddings.token_embedding`);
      const vectors = embedding(scope, graph.input("ids", "int64", [1, ids.length]), rows, features);
      graph.output("vectors", ops.reshape(vectors, [ids.length, features]));
    };
    return (await this.run(`vectors ${ids.length}`, build, { ids: wanted })).vectors as Tensor<"float32">;
  }

  /** What becomes of the pooled state `[B, C]`; nothing here. */
  protected project(_scope: Scope, pooled: Value): Value {
    return pooled;
  }

  private keyOf({ shape }: Tensor): string {
    return `${shape.join("x")}+${this.addedVectors?.shape[0] ?? 0}`;
  }

  /** Not part of the graphs: a training changes them. */
  private vectorsInput({ graph }: Scope): Value | undefined {
    return this.addedVectors && graph.input("added_vectors", "float32", this.addedVectors.shape);
  }

  private get vectors(): Record<string, Tensor> {
    return this.addedVectors ? { added_vectors: this.addedVectors } : {};
  }
}

/**
 * Token and position embeddings, `num_hidden_layers` causal transformer layers, and a final normalization.
 *
 * B batch, L tokens.
 *
 * @returns float32 `[B, L, hidden_size]`.
 * @throws {ShapeError} If L exceeds `max_position_embeddings`.
 */
export function clipTextModel(scope: Scope, inputs: ClipTextValues, config: CLIPTextConfig): Value {
  const last = hiddenStates(scope, inputs, config).at(-1)!;
  return layerNorm(scope.in(PREFIX).in("final_layer_norm"), last, config.layer_norm_eps);
}

/** The embeddings and the outputs of so many layers, before the final normalization: layers + 1 of `[B, L, C]`. */
function hiddenStates(
  scope: Scope,
  { inputIds, added }: ClipTextValues,
  config: CLIPTextConfig,
  layers = config.num_hidden_layers,
): Value[] {
  const { hidden_size: hidden, layer_norm_eps: epsilon, max_position_embeddings: limit } = config;
  const length = inputIds.shape[1]!;
  if (inputIds.rank !== 2 || length < 1 || length > limit) {
    throw new ShapeError(
      `CLIPTextModel: the input must be [B, L] with 1 to ${limit} tokens (max_position_embeddings); got ${inputIds}.`,
    );
  }
  const model = scope.in(PREFIX);
  const embeddings = model.in("embeddings");
  const known = embedding(embeddings.in("token_embedding"), inputIds, config.vocab_size, hidden, EMBEDDING_STD);
  const tokens = added ? withAdded(known, added) : known;
  const positions = embeddings
    .in("position_embedding")
    .parameter("weight", [limit, hidden], { kind: "normal", std: EMBEDDING_STD });
  let x = ops.add(tokens, ops.slice(positions, 0, 0, length));
  const states = [x];
  for (let index = 0; index < layers; index++) {
    const layer = model.in(`encoder.layers.${index}`);
    x = ops.add(x, selfAttention(layer.in("self_attn"), layerNorm(layer.in("layer_norm1"), x, epsilon), config));
    x = ops.add(x, feedForward(layer.in("mlp"), layerNorm(layer.in("layer_norm2"), x, epsilon), config));
    states.push(x);
  }
  return states;
}

/** x where a position has no vector, and its vector where it has one. */
function withAdded(x: Value, { places, vectors }: AddedTokenValues): Value {
  const count = vectors.shape[0]!;
  const ones = x.graph.constant(tensor(new Float32Array(count).fill(1), [count, 1]));
  const isKnown = ops.add(ops.neg(ops.matMul(places, ones)), 1);
  return ops.add(ops.mul(x, isKnown), ops.matMul(places, vectors));
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
