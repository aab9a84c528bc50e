// What is trained of a pipeline's text encoders beside the adapters of its denoiser: adapters, and vectors of new tokens.

import { fromFrozenWeights } from "../../adapters/adapter-model.js";
import {
  type Adapter,
  type AdapterConfig,
  type AdapterModel,
  type AdapterPart,
  type AttachableAdapter,
  createAdapter,
  type StepAdapter,
  type TextEncoderName,
} from "../../adapters/index.js";
import { JointAdapter, type JointPart, LooseTensors } from "../../adapters/joint-adapter.js";
import type { CompiledTrainStep, TrainStepOptions } from "../../adapters/train-step-options.js";
import type { UNetPipeline } from "../../pipelines/index.js";
import { Generator } from "../../tensor/random.js";
import { flatValues, Tensor } from "../../tensor/tensor.js";
import type { StepCompiler } from "../bucketed-train-step.js";
import { TrainStep } from "../train-step.js";
import { TextConditionedDenoiser } from "./text-conditioned-denoiser.js";
import { isOfText, TEXT_ENCODERS, vectorsName } from "./text-encoders.js";

/** What is trained. */
export interface TextTrainingOptions {
  pipeline: UNetPipeline;
  /** The denoiser's adapters. */
  denoiser: AdapterModel;
  /** Whether these are trained. Default true. */
  trainsDenoiser?: boolean;
  /** Of the adapters of text encoders; none are trained without it. */
  config?: AdapterConfig | undefined;
  /** Whether the vectors of new tokens that the text encoders have are trained. */
  trainsVectors?: boolean;
  /** Default 0. */
  seed?: number;
}

/** One text encoder's adapter. */
interface EncoderPart {
  index: number;
  name: TextEncoderName;
  /** On the encoder's own module paths, as files and pipelines have it. */
  own: Adapter;
  /** On the same behind the encoder's name, as the training step's graph has it. */
  inStep: Adapter;
}

/**
 * Adapters of a denoiser and of its text encoders as one thing to train, whose batches have token ids.
 *
 * Names of tensors are those of the denoiser's adapters, and behind `text_encoder.` and `text_encoder_2.` the text
 * encoders'.
 */
export class TextTraining implements StepCompiler {
  readonly model: TextConditionedDenoiser;
  private readonly joint: StepAdapter;
  private readonly all: ReadonlyMap<string, Tensor<"float32">>;

  private constructor(
    private readonly options: TextTrainingOptions,
    private readonly encoders: readonly EncoderPart[],
    ofText: ReadonlyMap<string, Tensor<"float32">>,
  ) {
    const { pipeline, denoiser, trainsDenoiser = true } = options;
    this.model = new TextConditionedDenoiser(pipeline);
    const vectors = options.trainsVectors ? vectorsOf(pipeline) : new Map<string, Tensor<"float32">>();
    const shapes = new Map([...vectors].map(([name, { shape }]) => [name, shape]));
    const parts: JointPart[] = [
      ...(trainsDenoiser ? [{ adapter: denoiser.adapter, seesLatents: true }] : []),
      ...encoders.map(({ inStep }) => ({ adapter: inStep, seesLatents: false })),
      { adapter: new LooseTensors(denoiser.config, shapes), seesLatents: false },
    ];
    this.joint = new JointAdapter(denoiser.config, parts);
    this.all = new Map([...(trainsDenoiser ? denoiser.parameters : []), ...ofText, ...vectors]);
  }

  /**
   * Fresh adapters of text encoders, which change nothing yet.
   *
   * @throws {ConfigError} If the configuration's targets name no layer of a text encoder, or its rank is too large.
   */
  static async create(options: TextTrainingOptions): Promise<TextTraining> {
    const { pipeline, config, seed = 0 } = options;
    if (!config) return new TextTraining(options, [], new Map());
    const model = new TextConditionedDenoiser(pipeline);
    const encoders = pipeline.textEncoders.map((_, index): EncoderPart => {
      const name = TEXT_ENCODERS[index]!;
      const layers = model.layersOf(index);
      const placed = layers.map((layer) => ({ ...layer, path: `${name}.${layer.path}` }));
      return { index, name, own: createAdapter(config, layers), inStep: createAdapter(config, placed) };
    });
    const values = new Map<string, Tensor<"float32">>();
    for (const { index, inStep } of encoders) {
      // Not the denoiser's stream: it is the same with text encoders as without.
      const drawn = inStep.initialize(new Generator(seed + 1 + index));
      const begun = await fromFrozenWeights(inStep, model);
      for (const [name, value] of [...drawn, ...(begun ?? [])]) values.set(name, value);
    }
    return new TextTraining(options, encoders, values);
  }

  /** All that is trained, by name, with current values. */
  get parameters(): ReadonlyMap<string, Tensor<"float32">> {
    this.options.denoiser.trained().residence.syncToHost();
    return this.all;
  }

  /** Number of trained values of the text encoders. */
  get textParameterCount(): number {
    return [...this.all].reduce((sum, [name, { size }]) => sum + (isOfText(name) ? size : 0), 0);
  }

  /** As `AdapterModel.compileTrainStep`; batches have `inputIds`, see {@link TextConditionedDenoiser}. */
  compileTrainStep(options: TrainStepOptions): Promise<CompiledTrainStep> {
    const { residence, isCurrent } = this.options.denoiser.trained();
    const { weights } = this.model;
    const trained = {
      ...{ adapter: this.joint, parameters: this.all, residence },
      isCurrent: () => isCurrent() && this.model.weights === weights,
    };
    return TrainStep.compile(this.model, trained, options);
  }

  /**
   * The text encoders' adapters with given values, for a pipeline, by the encoder's number. Values may change in place.
   *
   * @param values - By the names of {@link parameters}.
   */
  attachable(values: ReadonlyMap<string, Tensor<"float32">> = this.parameters): Map<number, AttachableAdapter> {
    return new Map(
      this.encoders.map((part) => [
        part.index,
        { adapter: part.own, parameters: ownValues(part, values), isShared: true },
      ]),
    );
  }

  /** The same as parts of an adapter's file. */
  fileParts(values: ReadonlyMap<string, Tensor<"float32">> = this.parameters): Map<TextEncoderName, AdapterPart> {
    return new Map(
      this.encoders.map((part) => {
        const { config, layers } = part.own;
        const state = part.own.toStateDict(flatValues(ownValues(part, values)));
        return [part.name, { config, layers, state }];
      }),
    );
  }

  /** Lets the text encoders have the vectors that are trained, where pictures were drawn with others. */
  useOwnVectors(): void {
    for (const [i, encoder] of this.model.encoders.entries()) {
      encoder.addedVectors = this.parameters.get(vectorsName(i)) ?? encoder.addedVectors;
    }
  }

  /** Copies of all values of text encoders. */
  copies(): Map<string, Tensor<"float32">> {
    const ofText = [...this.parameters].filter(([name]) => isOfText(name));
    return new Map(ofText.map(([name, { shape, data }]) => [name, new Tensor("float32", shape, data.slice())]));
  }
}

/** Vectors of new tokens by their names as trained tensors. */
const vectorsOf = ({ textEncoders }: UNetPipeline): Map<string, Tensor<"float32">> =>
  new Map(
    textEncoders.flatMap(({ addedVectors }, i): [string, Tensor<"float32">][] =>
      addedVectors ? [[vectorsName(i), addedVectors]] : [],
    ),
  );

function ownValues({ name, own }: EncoderPart, values: ReadonlyMap<string, Tensor<"float32">>) {
  return new Map([...own.shapes.keys()].map((key) => [key, values.get(`${name}.${key}`)!]));
}
