export { AutoencoderKL, type LatentDistribution, sampleLatents } from "./autoencoder-kl.js";
export type { TilingOptions } from "./autoencoder-tiling.js";
export { AutoencoderTiny } from "./autoencoder-tiny.js";
export { CLIPTextModel, type ClipHiddenStateOptions, type ClipTextStates } from "./clip-text-model.js";
export { CLIPTextModelWithProjection } from "./clip-text-model-with-projection.js";
export { CLIPTokenizer } from "./clip-tokenizer.js";
export type { PretrainedOptions } from "./pretrained.js";
export { UNet2DConditionModel, type UNetInputs } from "./unet-2d-condition.js";
