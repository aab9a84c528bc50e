// What of the text encoders is trained beside the denoiser's adapters.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { TEXT_ENCODER_TARGETS } from "../text/text-encoder-config.js";
import { flag, integer, list, number, OptionSpec, type OptionValues, text } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const TEXT_OPTIONS = {
  trainTextEncoder: flag(
    "train adapters of the text encoders, too: of the same kind, or LoRA beside FeRA and T-LoRA; captions are then " +
      "encoded in every step, and no text states are kept",
  ),
  trainTokens: text(
    "textual inversion: learn the vectors of this new token, which captions have; saved as learned_embeds.safetensors",
    "TOKEN",
  ),
  initializeTokens: text("with --train-tokens: the word or words whose vectors it begins with", "WORDS"),
  tokenVectors: integer("with --train-tokens: how many vectors the token has; 1 by default", { min: 1, max: 75 }),
  tokensOnly: flag("with --train-tokens: train no adapter of the denoiser, and save none"),
  textEncoderTargets: list(
    "layers of the text encoders that are adapted, by the end of their paths",
    "A,B",
  ).withDefault([...TEXT_ENCODER_TARGETS]),
  textEncoderLr: number("learning rate of what is trained of the text encoders; by default that of all", { min: 0 }),
  stopTextEncoder: new OptionSpec<number | undefined>(
    z
      .number()
      .gt(0)
      .refine((value) => value < 1 || Number.isSafeInteger(value)),
    "a number of steps, or a share of all steps below 1",
    "steps after which what is trained of the text encoders stays as it is: a number of them, or a share of all below 1",
    { placeholder: "N", parse: (given) => (given.trim() === "" ? given : Number(given)) },
  ),
};

/** Values of {@link TEXT_OPTIONS}. */
export type TextOptionValues = OptionValues<typeof TEXT_OPTIONS>;

/**
 * What contradicts itself, if anything.
 *
 * @param name - How an option is named in messages.
 */
export function textProblem(
  values: TextOptionValues & { learningRate?: number | undefined },
  name: (option: string) => string = String,
): string | undefined {
  const { trainTextEncoder, trainTokens, initializeTokens, tokenVectors, tokensOnly } = values;
  const { textEncoderLr, stopTextEncoder, textEncoderTargets, learningRate } = values;
  const isUsual = JSON.stringify(textEncoderTargets) === JSON.stringify(TEXT_OPTIONS.textEncoderTargets.defaultValue);
  if (trainTokens === undefined) {
    const needing = [
      initializeTokens !== undefined && "initializeTokens",
      tokenVectors !== undefined && "tokenVectors",
      tokensOnly && "tokensOnly",
    ].find((option) => option !== false);
    if (needing) return `${name(needing)} needs ${name("trainTokens")}: no token is trained.`;
  } else {
    if (initializeTokens === undefined) {
      return `${name("trainTokens")} needs ${name("initializeTokens")}: a word that is near to what is learned, such as dog.`;
    }
    const excluded =
      stopTextEncoder !== undefined ? "stopTextEncoder" : trainTextEncoder ? "trainTextEncoder" : undefined;
    if (tokensOnly && excluded)
      return `${name("tokensOnly")} and ${name(excluded)} exclude each other; give one of them.`;
  }
  if (!isUsual && !trainTextEncoder) {
    return `${name("textEncoderTargets")} needs ${name("trainTextEncoder")}: text encoders have no adapters.`;
  }
  if (!trainTextEncoder && trainTokens === undefined) {
    const needing = [
      textEncoderLr !== undefined && "textEncoderLr",
      stopTextEncoder !== undefined && "stopTextEncoder",
    ].find((option) => option !== false);
    return needing && `${name(needing)} needs ${name("trainTextEncoder")}: nothing of the text encoders is trained.`;
  }
  if (textEncoderLr === undefined || learningRate === undefined || learningRate > 0) return undefined;
  return `${name("textEncoderLr")} needs a ${name("learningRate")} above 0, with which the schedule moves both; got 0.`;
}

/**
 * The text encoders' factor on the learning rate: the schedule moves both alike.
 *
 * @throws {ConfigError} If there is no learning rate that it could be a factor of.
 */
export function textFactorOf({
  textEncoderLr,
  learningRate,
}: {
  textEncoderLr: number | undefined;
  learningRate: number | undefined;
}): number {
  if (textEncoderLr === undefined) return 1;
  if (learningRate !== undefined) return textEncoderLr / learningRate;
  throw new ConfigError(
    "textEncoderLr: this optimizer's steps are relative to the weights, without a learning rate. Give learningRate, too.",
  );
}

/** The step after which the text encoders stay as they are; undefined for never. */
export const lastTextStep = (stop: number | undefined, steps: number): number | undefined =>
  stop === undefined ? undefined : stop < 1 ? Math.round(stop * steps) : stop;
