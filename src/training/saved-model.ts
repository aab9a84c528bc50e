// The model as it would be saved at any step of a training: with the average of its adapters, where there is one.

import type { AdapterConfig, AdapterModel } from "../adapters/index.js";
import type { Tensor } from "../tensor/tensor.js";

/** Parameters that are saved instead of those that are trained, such as a `ParameterAverage`. */
export interface DeliveredParameters {
  readonly values: ReadonlyMap<string, Tensor<"float32">>;
}

/** What pictures and validation look at. */
export class SavedModel {
  /** Holds the average while the training goes on with its own adapters. */
  private averaged: AdapterModel | undefined;

  constructor(
    private readonly model: AdapterModel,
    private readonly average: DeliveredParameters | undefined,
  ) {}

  /** Of its adapters. */
  get config(): AdapterConfig {
    return this.model.config;
  }

  /** With current values; the training's own model where nothing is averaged. */
  current(): AdapterModel {
    const { model, average } = this;
    if (!average) return model;
    this.averaged ??= model.copy();
    for (const [name, { data }] of average.values) this.averaged.parameters.get(name)!.data.set(data);
    return this.averaged;
  }

  /** Frees what was compiled for the average. */
  async release(): Promise<void> {
    await this.averaged?.release();
  }
}
