// A denoiser with its text encoders in front: it takes token ids in place of text states, so that a training step's graph
// reaches what is trained of the text encoders.

import { recordLayers, type TargetLayer } from "../../adapters/index.js";
import type { Conditioning, Denoiser, DenoiserInputs, DenoiserShape } from "../../diffusion/index.js";
import { conditioningOf } from "../../diffusion/index.js";
import { ShapeError } from "../../errors.js";
import type { Graph, Value } from "../../graph/index.js";
import * as ops from "../../graph/index.js";
import type { CLIPTextModel, ClipHiddenStateOptions } from "../../models/clip-text/clip-text-model.js";
import { type LayerAdapters, ModelWeights, Scope } from "../../nn/index.js";
import { StableDiffusionXLPipeline, type UNetPipeline } from "../../pipelines/index.js";
import { concatFeatures } from "../../pipelines/text-encoding.js";
import type { RuntimeOptions } from "../../runtime/index.js";
import { Tensor, zeros } from "../../tensor/tensor.js";
import { HAS_TEXT, ID_INPUTS, TEXT_ENCODERS, vectorsName } from "./text-encoders.js";

/** What is used of an encoder's layers: what the family was trained with. */
const LAST: ClipHiddenStateOptions = {};
const NEXT_TO_LAST: ClipHiddenStateOptions = { hiddenLayersFromEnd: 1, finalNorm: false };
/** Inputs of the denoiser that the text encoders give. */
const TEXT_INPUTS = ["encoderHiddenStates", "textEmbeds"];

/**
 * The denoiser of Stable Diffusion 1.x, 2.x or XL behind its text encoders, whose modules are `text_encoder` and
 * `text_encoder_2`; those of the denoiser have no prefix.
 *
 * A batch has `inputIds` (int64 `[B, T]`), with two encoders also `inputIds2`, and `hasText` where an empty caption is no
 * text at all. All else is the denoiser's.
 */
export class TextConditionedDenoiser implements Denoiser {
  readonly unet: UNetPipeline["unet"];
  readonly encoders: readonly CLIPTextModel[];
  /** Whether zeros stand for an empty caption. */
  readonly zeroesEmpty: boolean;
  private readonly isXl: boolean;
  private merged: { of: readonly ModelWeights[]; weights: ModelWeights } | undefined;

  constructor(pipeline: UNetPipeline) {
    this.unet = pipeline.unet;
    this.encoders = pipeline.textEncoders;
    this.isXl = pipeline instanceof StableDiffusionXLPipeline;
    this.zeroesEmpty = pipeline instanceof StableDiffusionXLPipeline && pipeline.forceZerosForEmptyPrompt;
  }

  get className(): string {
    return this.unet.className;
  }

  /** The denoiser's, and each text encoder's behind its name. */
  get weights(): ModelWeights {
    const of = [this.unet.weights, ...this.encoders.map(({ weights }) => weights)];
    if (this.merged && of.every((each, i) => this.merged!.of[i] === each)) return this.merged.weights;
    const named = this.encoders.flatMap(({ weights }, i) =>
      [...weights.weights].map(([name, weight]) => [`${TEXT_ENCODERS[i]}.${name}`, weight] as const),
    );
    const weights = new ModelWeights(new Map([...this.unet.weights.weights, ...named]), this.unet.weights.source);
    this.merged = { of, weights };
    return weights;
  }

  get runtime(): RuntimeOptions {
    return this.unet.runtime;
  }

  get latentChannels(): number {
    return this.unet.latentChannels;
  }

  get smallestShape(): DenoiserShape {
    return this.unet.smallestShape;
  }

  shapeOf(inputs: DenoiserInputs): DenoiserShape {
    const { ids, rest } = this.split(inputs);
    const [batch, tokens] = ids[0]!.shape as [number, number];
    const stand = zeros([batch, tokens, this.unet.config.cross_attention_dim]);
    const pooled = this.isXl ? { textEmbeds: zeros([batch, this.pooledFeatures]) } : {};
    return this.unet.shapeOf({ ...rest, encoderHiddenStates: stand, ...pooled });
  }

  feedsOf(inputs: DenoiserInputs): Record<string, Tensor> {
    const { ids, hasText, rest } = this.split(inputs);
    const feeds = this.encoders.map((encoder, i) =>
      encoder.feedsOf(ids[i]!, { prefix: `${TEXT_ENCODERS[i]}.`, pooled: this.isPooled(i) }),
    );
    return Object.assign(this.unet.feedsOf(rest), ...feeds, hasText && { [HAS_TEXT]: hasText });
  }

  declareInputs(graph: Graph, shape: DenoiserShape): Record<string, Value> {
    const { batchSize, tokens } = shape;
    const declared = this.unet.declareInputs(graph, shape, TEXT_INPUTS);
    for (const [i, encoder] of this.encoders.entries()) {
      const prefix = `${TEXT_ENCODERS[i]}.`;
      const count = encoder.addedVectors?.shape[0];
      declared[`${prefix}input_ids`] = graph.input(`${prefix}input_ids`, "int64", [batchSize, tokens]);
      if (this.isPooled(i)) declared[`${prefix}ends`] = graph.input(`${prefix}ends`, "float32", [batchSize, 1, tokens]);
      if (!count) continue;
      const places = [batchSize, tokens, count];
      declared[`${prefix}added_places`] = graph.input(`${prefix}added_places`, "float32", places);
    }
    if (this.zeroesEmpty) declared[HAS_TEXT] = graph.input(HAS_TEXT, "float32", [batchSize]);
    return declared;
  }

  build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value {
    const states = this.encoders.map((encoder, i) => {
      const prefix = `${TEXT_ENCODERS[i]}.`;
      const places = inputs[`${prefix}added_places`];
      const vectors = inputs[vectorsName(i)] ?? (places && scope.graph.constant(encoder.addedVectors!));
      const values = {
        inputIds: inputs[`${prefix}input_ids`]!,
        ends: inputs[`${prefix}ends`],
        added: places && { places, vectors: vectors! },
      };
      return encoder.buildStates(scope.in(TEXT_ENCODERS[i]!), values, this.isXl ? NEXT_TO_LAST : LAST);
    });
    const hidden = states.map((each) => each.hidden);
    const text = hidden.length === 1 ? hidden[0]! : ops.concat(hidden, -1);
    const pooled = states.at(-1)!.pooled;
    const factor = inputs[HAS_TEXT];
    const told = (value: Value) =>
      factor ? ops.mul(value, ops.reshape(factor, [factor.size, ...value.shape.slice(1).map(() => 1)])) : value;
    return this.unet.build(scope, {
      ...inputs,
      encoderHiddenStates: told(text),
      ...(pooled && { textEmbeds: told(pooled) }),
    });
  }

  /** Layers of a text encoder, without its name, on which what the denoiser is told depends. */
  layersOf(encoder: number): TargetLayer[] {
    const model = this.encoders[encoder]!;
    return recordLayers((graph, adapters) => {
      const values = model.declareInputs(graph, { batchSize: 1, tokens: 1, pooled: this.isPooled(encoder) });
      model.buildStates(model.frozenScope(graph, adapters), values, this.isXl ? NEXT_TO_LAST : LAST);
    });
  }

  frozenScope(graph: Graph, adapters?: LayerAdapters): Scope {
    return new Scope(graph, this.weights, adapters);
  }

  async predict(inputs: DenoiserInputs): Promise<Tensor<"float32">> {
    return this.unet.predict(await this.encoded(inputs));
  }

  /**
   * A batch with text states in place of token ids: what the denoiser alone takes.
   *
   * @param adaptersOf - Those of the text encoder of that number.
   */
  async encoded(
    inputs: DenoiserInputs,
    adaptersOf: (encoder: number) => ClipHiddenStateOptions["adapters"] = () => undefined,
  ): Promise<DenoiserInputs> {
    const { ids, hasText, rest } = this.split(inputs);
    const states: Tensor<"float32">[] = [];
    let pooled: Tensor<"float32"> | undefined;
    for (const [i, encoder] of this.encoders.entries()) {
      const options = { ...(this.isXl ? NEXT_TO_LAST : LAST), adapters: adaptersOf(i) };
      const { hiddenState, pooled: own } = await encoder.encodeAll(ids[i] as Tensor<"int64">, options);
      states.push(hiddenState);
      if (this.isPooled(i)) pooled = own;
    }
    const text = states.length === 1 ? states[0]! : concatFeatures(states[0]!, states[1]!);
    const told: Conditioning = {
      encoderHiddenStates: withoutText(text, hasText),
      ...(pooled && { textEmbeds: withoutText(pooled, hasText) }),
    };
    return { ...rest, ...told };
  }

  async release(): Promise<void> {
    await Promise.all([this.unet, ...this.encoders].map((model) => model.release()));
  }

  /** Only SDXL's second encoder has a pooled state that is used. */
  private isPooled(encoder: number): boolean {
    return this.isXl && encoder === this.encoders.length - 1;
  }

  private get pooledFeatures(): number {
    return (this.encoders.at(-1)!.config as { projection_dim?: number }).projection_dim!;
  }

  /** @throws {ShapeError} If the ids are missing, or of another shape than each other. */
  private split({ latents, timesteps, ...beside }: DenoiserInputs) {
    const conditioning = conditioningOf(beside) as Record<string, Tensor>;
    const ids = this.encoders.map((_, i) => {
      const name = ID_INPUTS[i]!;
      const own = conditioning[name];
      const first = conditioning[ID_INPUTS[0]];
      if (own?.shape.length === 2 && own.shape.join() === first?.shape.join()) return own;
      const came = own ? `[${own.shape.join(",")}]` : "none";
      throw new ShapeError(`text encoders: ${name} must be [${first?.shape.join(",") ?? "B,T"}]; got ${came}.`);
    });
    const rest = Object.fromEntries(
      Object.entries(conditioning).filter(([name]) => name !== HAS_TEXT && !ID_INPUTS.includes(name as "inputIds")),
    );
    const hasText = conditioning[HAS_TEXT];
    if (this.zeroesEmpty && !hasText) throw new ShapeError(`text encoders: ${HAS_TEXT} is missing.`);
    return { ids, hasText, rest: { latents, timesteps, ...rest } as DenoiserInputs };
  }
}

function withoutText(value: Tensor<"float32">, hasText: Tensor | undefined): Tensor<"float32"> {
  if (!hasText) return value;
  const width = value.size / value.shape[0]!;
  return new Tensor(
    "float32",
    value.shape,
    value.data.map((each, i) => each * Number(hasText.data[Math.floor(i / width)])),
  );
}
