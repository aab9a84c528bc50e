// The embedded model's recipe: every number that its training depends on.

export const IMAGE_SIZE = 128;
export const SEED = 1;
/** Side of the patches whose principal components are the latents: 8× down. */
export const PATCH = 8;
export const LATENT_CHANNELS = 48;
/** Components are divided by their standard deviation to this power: between 0, pixels' own scale, and 1, all alike. */
export const WHITENING = 0.6;

export const AUTOENCODER_CONFIG = {
  in_channels: 3,
  out_channels: 3,
  encoder_block_out_channels: [48, 48, 48, 48],
  decoder_block_out_channels: [48, 48, 48, 48],
  num_encoder_blocks: [0, 0, 0, 0],
  num_decoder_blocks: [4, 3, 1, 0],
  latent_channels: LATENT_CHANNELS,
};
/** Of the latents before the scaling factor, well within the ±3 to which the decoder squashes them. */
export const LATENT_DEVIATION = 0.5;

export const LATENT_SIZE = IMAGE_SIZE / PATCH;
export const MAX_TOKENS = 24;
/** Enough that every word of the trained captions is one token; short of that, the text encoder would have to learn to spell. */
export const VOCABULARY_SIZE = 3072;
export const TEXT_FEATURES = 128;

export const UNET_CONFIG = {
  sample_size: LATENT_SIZE,
  in_channels: LATENT_CHANNELS,
  out_channels: LATENT_CHANNELS,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  mid_block_type: null,
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  block_out_channels: [96, 128, 224],
  layers_per_block: 1,
  norm_num_groups: 16,
  cross_attention_dim: TEXT_FEATURES,
  attention_head_dim: 4,
  // The caption reaches every residual block, as a scale and a shift, not only those with attention.
  addition_embed_type: "text",
  addition_embed_type_num_heads: 4,
  resnet_time_scale_shift: "scale_shift",
};

/** For comparison: the caption reaches attention only. */
export const PLAIN_UNET_CONFIG = { ...UNET_CONFIG, addition_embed_type: null, addition_embed_type_num_heads: 64 };

/** For comparison: 256 tokens, one of each place, and about as many parameters. */
export const TRANSFORMER_CONFIG = {
  sample_size: LATENT_SIZE,
  patch_size: 1,
  in_channels: LATENT_CHANNELS,
  out_channels: LATENT_CHANNELS,
  num_layers: 6,
  num_attention_heads: 4,
  attention_head_dim: 64,
  caption_projection_dim: 256,
  joint_attention_dim: TEXT_FEATURES,
  pooled_projection_dim: TEXT_FEATURES,
  pos_embed_max_size: LATENT_SIZE,
  qk_norm: "rms_norm",
};

export const textEncoderConfig = (vocabularySize: number, endOfText: number) => ({
  vocab_size: vocabularySize,
  hidden_size: TEXT_FEATURES,
  intermediate_size: 4 * TEXT_FEATURES,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  max_position_embeddings: MAX_TOKENS,
  hidden_act: "quick_gelu",
  eos_token_id: endOfText,
});

/**
 * The noise ends at a signal-to-noise ratio of 4e-5 instead of Stable Diffusion's 5e-3: the latents' first components have
 * most of their power, and a mean colour would still show through.
 */
export const SCHEDULER_CONFIG = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.025,
  beta_schedule: "scaled_linear",
  prediction_type: "v_prediction",
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
  timestep_spacing: "trailing",
};

/**
 * How much larger the output layers of attention to the text start than others. Averaged over 24 tokens, of which one or two say
 * what is to be drawn, text would otherwise hardly be seen at first.
 */
export const TEXT_STRENGTH = 3;
/** Moves timesteps towards noise, where the caption decides what is drawn. */
export const TIMESTEP_SHIFT = 3;
/**
 * Errors of a latent channel count with its power to this exponent: shapes and colours more than the detail within a patch, which
 * is most of an unweighted loss and cannot be predicted before the shape is right.
 */
export const CHANNEL_WEIGHTING = 0.75;
export const BATCH = 32;
export const LEARNING_RATE = 1e-3;
export const WARMUP_STEPS = 100;
/** Checkpoints, and how many are kept: the mean of their weights is what is exported. */
export const CHECKPOINT_EVERY = 50;
export const KEPT_CHECKPOINTS = 8;
export const CAPTION_DROPOUT = 0.1;

/** How pictures are drawn for the score and the samples. */
export const SAMPLING = { steps: 16, guidanceScale: 3, seed: 7 };
