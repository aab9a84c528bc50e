// How text encoders, and what is trained of them, are called in trained tensors and batches.

/** diffusers' names of a pipeline's text encoders, in their order: modules of `TextConditionedDenoiser`. */
export const TEXT_ENCODERS = ["text_encoder", "text_encoder_2"] as const;

/** The conditioning that stands in place of text states: token ids for each encoder, int64 `[B, T]`. */
export const ID_INPUTS = ["inputIds", "inputIds2"] as const;

/** float32 `[B]`: 0 where the text counts as none, so that zeros stand in its place; 1 elsewhere. */
export const HAS_TEXT = "hasText";

/** The trained tensor with the vectors of a text encoder's new tokens, `[N, hidden_size]`. */
export const vectorsName = (encoder: number): string => `${TEXT_ENCODERS[encoder]}.token_vectors`;

/** Whether a trained tensor is a text encoder's. */
export const isOfText = (name: string): boolean => TEXT_ENCODERS.some((encoder) => name.startsWith(`${encoder}.`));
