// The classes of models that can be loaded, by the names that configurations give them.

import { AutoencoderKL } from "./autoencoder-kl/autoencoder-kl.js";
import { AutoencoderKLFlux2 } from "./autoencoder-kl/autoencoder-kl-flux2.js";
import { AutoencoderTiny } from "./autoencoder-tiny/autoencoder-tiny.js";
import { CLIPTextModel } from "./clip-text/clip-text-model.js";
import { CLIPTextModelWithProjection } from "./clip-text/clip-text-model-with-projection.js";
import { FluxTransformer2DModel } from "./flux-transformer-2d/flux-transformer-2d.js";
import { Flux2Transformer2DModel } from "./flux2-transformer-2d/flux2-transformer-2d.js";
import type { Model } from "./model.js";
import type { PretrainedOptions } from "./pretrained.js";
import { Qwen3Model } from "./qwen3/qwen3-model.js";
import { SD3Transformer2DModel } from "./sd3-transformer-2d/sd3-transformer-2d.js";
import { T5EncoderModel } from "./t5-text/t5-encoder-model.js";
import { UNet2DConditionModel } from "./unet-2d-condition/unet-2d-condition.js";
import { ZImageTransformer2DModel } from "./z-image-transformer-2d/z-image-transformer-2d.js";

/** By `_class_name`, or transformers' `architectures`. */
export const KNOWN_MODELS: ReadonlyMap<
  string,
  { fromPretrained(dir: string, options?: PretrainedOptions): Promise<Model<unknown>> }
> = new Map<string, { fromPretrained(dir: string, options?: PretrainedOptions): Promise<Model<unknown>> }>([
  ["UNet2DConditionModel", UNet2DConditionModel],
  ["SD3Transformer2DModel", SD3Transformer2DModel],
  ["FluxTransformer2DModel", FluxTransformer2DModel],
  ["Flux2Transformer2DModel", Flux2Transformer2DModel],
  ["ZImageTransformer2DModel", ZImageTransformer2DModel],
  ["AutoencoderKL", AutoencoderKL],
  ["AutoencoderKLFlux2", AutoencoderKLFlux2],
  ["AutoencoderTiny", AutoencoderTiny],
  ["CLIPTextModel", CLIPTextModel],
  ["CLIPTextModelWithProjection", CLIPTextModelWithProjection],
  ["T5EncoderModel", T5EncoderModel],
  ["Qwen3Model", Qwen3Model],
  ["Qwen3ForCausalLM", Qwen3Model],
]);
