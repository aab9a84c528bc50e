// Tensors that published checkpoints carry beside what a model computes with. Each is left out because leaving it out
// changes no result; whatever is not on this list and not used is refused.

/** Names of tensors, and why they may be left out. */
interface Harmless {
  names: RegExp;
  why: string;
}

const POSITIONS: Harmless = {
  names: /(^|\.)position_ids$/,
  why: "0, 1, 2, …: a constant that transformers wrote until 4.31; the model counts by itself",
};

/**
 * What transformers' CLIPTextModel leaves out, too, when it is given a whole CLIP, or the file of a
 * CLIPTextModelWithProjection: its output depends on the text model alone.
 */
const WHOLE_CLIP: Harmless[] = [
  { names: /(^|\.)(vision_model\.|visual_projection\.)/, why: "the model for images" },
  { names: /(^|\.)logit_scale$/, why: "a factor between the two models' outputs, for CLIP's own training" },
];

const BY_CLASS: Readonly<Record<string, readonly Harmless[]>> = {
  UNet2DConditionModel: [],
  AutoencoderKL: [{ names: /^loss\./, why: "the discriminator and perceptual loss of the autoencoder's own training" }],
  AutoencoderKLFlux2: [
    { names: /^bn\.num_batches_tracked$/, why: "how long the statistics of its training were gathered" },
  ],
  AutoencoderTiny: [],
  CLIPTextModel: [
    POSITIONS,
    ...WHOLE_CLIP,
    { names: /(^|\.)text_projection(\.weight)?$/, why: "is applied after what a CLIPTextModel gives" },
  ],
  CLIPTextModelWithProjection: [POSITIONS, ...WHOLE_CLIP],
  T5EncoderModel: [
    { names: /^encoder\.embed_tokens\.weight$/, why: "shared.weight under its second name" },
    { names: /^(decoder|lm_head)\./, why: "the decoder, which an encoder's states do not depend on" },
  ],
  Qwen3Model: [{ names: /^lm_head\.weight$/, why: "gives the next token, from states that are not changed by it" }],
};

/** What a single-file checkpoint carries beside its models. */
const BESIDE_MODELS: readonly Harmless[] = [
  { names: /^model_ema\./, why: "a second, averaged copy of the diffusion model; diffusers takes the first as well" },
  {
    names:
      /^(betas|logvar|lvlb_weights|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_(variance|log_variance_clipped|mean_coef[12]))$/,
    why: "the noise schedule, tabulated; it follows from the scheduler's configuration",
  },
  { names: /^denoiser\.sigmas$/, why: "the noise schedule of SDXL, tabulated" },
  {
    names: /^(v_pred|ztsnr)$/,
    why: "marks without values; what they mark is compared with the scheduler's configuration",
  },
];

/** Whether a class of models gives the same without the tensor of that name. */
export function harmlessIn(className: string): (name: string) => boolean {
  const own = BY_CLASS[className] ?? [];
  return (name) => own.some(({ names }) => names.test(name));
}

/** Whether a single-file checkpoint's tensor, under its whole name, belongs to no model and changes nothing. */
export const isBesideModels = (name: string): boolean => BESIDE_MODELS.some(({ names }) => names.test(name));
