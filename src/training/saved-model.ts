// The model as it would be saved at any step of a training: with the average of its adapters, where there is one.

import type { AdapterConfig, AdapterModel, AttachableAdapter } from "../adapters/index.js";
import { graphAdapters } from "../adapters/index.js";
import type { Denoiser } from "../diffusion/index.js";
import type { AnyPipeline } from "../pipelines/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { isOfText, vectorsName } from "./text/text-encoders.js";
import type { TextTraining } from "./text/text-training.js";

/** Parameters that are saved instead of those that are trained, such as a `ParameterAverage`. */
export interface DeliveredParameters {
  readonly values: ReadonlyMap<string, Tensor<"float32">>;
}

/** What pictures and validation look at. */
export class SavedModel {
  /** Holds the average while the training goes on with its own adapters. */
  private averaged: AdapterModel | undefined;
  private averagedText: ReadonlyMap<string, Tensor<"float32">> | undefined;
  private ofText: ReadonlyMap<number, AttachableAdapter> | undefined;

  constructor(
    private readonly model: AdapterModel,
    private readonly average: DeliveredParameters | undefined,
    /** What of the text encoders is trained, if anything. */
    private readonly text?: TextTraining,
  ) {}

  /** Of the denoiser's adapters. */
  get config(): AdapterConfig {
    return this.model.config;
  }

  /** The denoiser's adapters with current values; the training's own model where nothing is averaged. */
  current(): AdapterModel {
    const { model, average } = this;
    if (!average) return model;
    this.averaged ??= model.copy();
    for (const [name, { data }] of average.values) {
      if (!isOfText(name)) this.averaged.parameters.get(name)!.data.set(data);
    }
    return this.averaged;
  }

  /** What predicts with current values, of a training's batches. */
  predictor(): Pick<Denoiser, "predict"> {
    const model = this.current();
    const { text } = this;
    if (!text) return model;
    const parts = this.currentText(text);
    return {
      async predict(inputs) {
        const adaptersOf = (encoder: number) => {
          const part = parts.get(encoder);
          return part && graphAdapters([{ ...part, scale: 1 }]);
        };
        return model.predict(await text.model.encoded(inputs, adaptersOf));
      },
    };
  }

  /** Lets a pipeline draw with current values. */
  useIn(pipeline: AnyPipeline): void {
    pipeline.useAdapters(this.current(), this.text && { textEncoders: this.currentText(this.text) });
  }

  /** Frees what was compiled for the average. */
  async release(): Promise<void> {
    await this.averaged?.release();
  }

  private currentText(text: TextTraining): ReadonlyMap<number, AttachableAdapter> {
    const { average } = this;
    if (!average) {
      this.ofText ??= text.attachable();
      // Brings them back from a device.
      void text.parameters;
      return this.ofText;
    }
    this.averagedText ??= text.copies();
    for (const [name, { data }] of average.values) this.averagedText.get(name)?.data.set(data);
    for (const [i, encoder] of text.model.encoders.entries()) {
      encoder.addedVectors = this.averagedText.get(vectorsName(i)) ?? encoder.addedVectors;
    }
    this.ofText ??= text.attachable(this.averagedText);
    return this.ofText;
  }
}
