export type { Autoencoder } from "./autoencoder.js";
export { AutoencoderKL } from "./autoencoder-kl/autoencoder-kl.js";
export { AutoencoderKLFlux2 } from "./autoencoder-kl/autoencoder-kl-flux2.js";
export type { Tiling, TilingDirection, TilingOptions, Tilings } from "./autoencoder-kl/autoencoder-tiling.js";
export { type LatentDistribution, sampleLatents } from "./autoencoder-kl/kl-autoencoder.js";
export { type LatentScaling, scaledLatents, unscaledLatents } from "./autoencoder-kl/latent-scaling.js";
export { AutoencoderTiny } from "./autoencoder-tiny/autoencoder-tiny.js";
export type { AddedTokenValues, ClipInputOptions, ClipTextValues } from "./clip-text/clip-text-inputs.js";
export {
  type CLIPTextConfig,
  CLIPTextModel,
  type ClipHiddenStateOptions,
  type ClipTextStates,
} from "./clip-text/clip-text-model.js";
export { CLIPTextModelWithProjection } from "./clip-text/clip-text-model-with-projection.js";
export { CLIPTokenizer, type ClipBatch, type ClipEncoding } from "./clip-tokenizer/clip-tokenizer.js";
export type { ClipTokenizerFiles } from "./clip-tokenizer/clip-tokenizer-description.js";
export type { FluxTransformerConfig } from "./flux-transformer-2d/flux-config.js";
export { FluxTransformer2DModel } from "./flux-transformer-2d/flux-transformer-2d.js";
export type { Flux2TransformerConfig } from "./flux2-transformer-2d/flux2-config.js";
export { Flux2Transformer2DModel } from "./flux2-transformer-2d/flux2-transformer-2d.js";
export type { PretrainedOptions } from "./pretrained.js";
export { QwenTokenizer, type QwenTokenizerFiles } from "./qwen-tokenizer/qwen-tokenizer.js";
export { type Qwen3Config, Qwen3Model } from "./qwen3/qwen3-model.js";
export type { SD3TransformerConfig } from "./sd3-transformer-2d/sd3-config.js";
export { SD3Transformer2DModel } from "./sd3-transformer-2d/sd3-transformer-2d.js";
export { type T5Config, T5EncoderModel } from "./t5-text/t5-encoder-model.js";
export { T5Tokenizer } from "./t5-tokenizer/t5-tokenizer.js";
export type { T5TokenizerFiles } from "./t5-tokenizer/t5-tokenizer-folder.js";
export type { Piece } from "./t5-tokenizer/unigram.js";
export type { TokenEncoding } from "./token-encoding.js";
export type { TransformerDenoiser } from "./transformer/transformer-denoiser.js";
export { UNet2DConditionModel, type UNetInputs } from "./unet-2d-condition/unet-2d-condition.js";
export type { UNet2DConditionConfig, UNetBlock } from "./unet-2d-condition/unet-config.js";
export { WEIGHT_TYPES, type WeightType } from "./weight-loading.js";
export type { ZImageTransformerConfig } from "./z-image-transformer-2d/z-image-config.js";
export { ZImageTransformer2DModel } from "./z-image-transformer-2d/z-image-transformer-2d.js";
