// An adapter by itself, without any model: as it is written, and as it was read.

import type { Tensor } from "../tensor/tensor.js";
import type { AdapterConfig } from "./adapter.js";
import type { TargetLayer } from "./target-layers.js";

/** An adapter by itself, without its model. */
export interface AdapterData<Config extends AdapterConfig = AdapterConfig> {
  config: Config;
  /** Under the names of files. */
  state: ReadonlyMap<string, Tensor<"float32">>;
  /** Parts for text encoders beside it, under the encoders' own module paths. */
  textEncoders?: ReadonlyMap<TextEncoderName, AdapterPart> | undefined;
}

/** An adapter's part for one component of a pipeline. */
export interface AdapterPart<Config extends AdapterConfig = AdapterConfig>
  extends Omit<AdapterData<Config>, "textEncoders"> {
  /** The layers that its tensors name. */
  layers: readonly TargetLayer[];
}

/** diffusers' names of a pipeline's text encoders. */
export type TextEncoderName = "text_encoder" | "text_encoder_2";

/** An adapter as read: its part for the denoiser, and what else the file holds. */
export interface LoadedAdapter<Config extends AdapterConfig = AdapterConfig> extends AdapterPart<Config> {
  state: Map<string, Tensor<"float32">>;
  /** False where the file has no configuration, so that what shapes do not tell was assumed. */
  hasConfig: boolean;
  /**
   * Its parts for text encoders, under the encoders' own module paths (`text_model.encoder.layers.0.self_attn.q_proj`).
   * A file may have nothing else; `state` and `layers` are empty then.
   */
  textEncoders?: ReadonlyMap<TextEncoderName, AdapterPart>;
  /**
   * The part for the denoiser under the module paths of a model. Where a file has names that only a model's layers
   * explain (flattened, renumbered, counted), `state`, `layers` and the configuration have the file's own until then.
   *
   * @param layers - All layers of the model that adapters can change.
   * @throws {FormatError} If a layer is not among them, or has other sizes.
   */
  resolve?(layers: readonly TargetLayer[]): AdapterPart;
  /** What the file holds that is not used, one sentence each, to be told to the user. */
  notes?: readonly string[];
}
