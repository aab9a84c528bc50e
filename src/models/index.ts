export { AutoencoderKL } from "./autoencoder-kl.js";
export { AutoencoderTiny } from "./autoencoder-tiny.js";
export { CLIPTextModel } from "./clip-text-model.js";
export { CLIPTokenizer } from "./clip-tokenizer.js";
export type { PretrainedOptions } from "./pretrained.js";
export { UNet2DConditionModel, type UNetInputs } from "./unet-2d-condition.js";
