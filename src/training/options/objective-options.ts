// What a denoiser is trained to predict: noise, noise levels and losses. Names are kohya's and diffusers' where they have one.

import {
  DEFAULT_MULTIRES_DISCOUNT,
  HUBER_DEFAULTS,
  HUBER_SCHEDULES,
  LOSS_KINDS,
  LOSS_WEIGHTINGS,
  type ObjectiveOptions,
  PREDICTION_TYPES,
  TIMESTEP_DEFAULTS,
  TIMESTEP_SAMPLINGS,
  WEIGHTING_DEFAULTS,
} from "../../diffusion/index.js";
import type { NoisingOptions } from "../noised-batch.js";
import { choice, flag, integer, number, type OptionValues, pickValues } from "./option.js";

/** What a model learns, which its sampling and its measurement depend on, too. */
export const PREDICTION_OPTIONS = {
  predictionType: choice("what the denoiser predicts; by default what the model's scheduler says", PREDICTION_TYPES),
  zeroTerminalSnr: flag("rescale the noise schedule to end in pure noise; for models that predict v or the image"),
};

const LOSSES = {
  loss: choice("loss between prediction and target", LOSS_KINDS).withDefault("mse"),
  huberC: number("where huber and smooth-l1 turn from quadratic to linear", { above: 0 }).withDefault(
    HUBER_DEFAULTS.huberC,
  ),
  huberSchedule: choice(
    "how the threshold of huber and smooth-l1 follows the noise level",
    HUBER_SCHEDULES,
  ).withDefault(HUBER_DEFAULTS.huberSchedule),
  lossWeighting: choice(
    "weights of the loss by noise level; by default none, or min-snr where its gamma is given",
    LOSS_WEIGHTINGS,
  ),
  minSnrGamma: number(
    `largest SNR that counts in full, of min-snr; ${WEIGHTING_DEFAULTS.minSnrGamma} by default there`,
    {
      above: 0,
    },
  ),
  p2Gamma: number("exponent of the p2 weights", { min: 0 }).withDefault(WEIGHTING_DEFAULTS.p2Gamma),
  p2K: number("what the p2 weights add to the SNR", { above: 0 }).withDefault(WEIGHTING_DEFAULTS.p2K),
  scaleVPredLossLikeNoisePred: flag("scale the loss of models that predict v as if they predicted noise"),
  vPredLikeLoss: number("how much of a loss like that of v models that predict noise have on top; 0 for none", {
    min: 0,
  }).withDefault(0),
  unmaskedWeight: number("what places outside a mask count at least", { min: 0, max: 1 }).withDefault(0),
  normalizeMaskedLoss: flag("divide the loss of a masked image by the share of it that the mask shows"),
};

const NOISE = {
  noiseOffset: number(
    "strength of the noise that a channel has as a whole, for darker and brighter images; 0 for none",
    {
      min: 0,
    },
  ).withDefault(0),
  noiseOffsetRandom: flag("draw the strength of the noise offset for each batch, from 0 up"),
  multiresNoiseIterations: integer("coarser noises that are added to the noise, 6 to 10 where any; 0 for none", {
    min: 0,
    max: 100,
  }).withDefault(0),
  multiresNoiseDiscount: number("how much each coarser noise counts of the one before", { min: 0, max: 1 }).withDefault(
    DEFAULT_MULTIRES_DISCOUNT,
  ),
  inputPerturbation: number("noise on the input beyond what is to be predicted, about 0.1; 0 for none", {
    min: 0,
  }).withDefault(0),
  inputPerturbationRandom: flag("draw the strength of the input perturbation for each batch, from 0 up"),
};

const TIMESTEPS = {
  timestepSampling: choice("how timesteps are spread over the range", TIMESTEP_SAMPLINGS).withDefault(
    TIMESTEP_DEFAULTS.timestepSampling,
  ),
  logitMean: number("mean of logit-normal timesteps, above 0 towards noise").withDefault(TIMESTEP_DEFAULTS.logitMean),
  logitStd: number("standard deviation of logit-normal timesteps", { above: 0 }).withDefault(
    TIMESTEP_DEFAULTS.logitStd,
  ),
  modeScale: number("how much timesteps of mode crowd in the middle", { min: -1, max: 1.75 }).withDefault(
    TIMESTEP_DEFAULTS.modeScale,
  ),
  timestepShift: number("moves timesteps towards noise, above 1; by default what the model's scheduler says", {
    above: 0,
  }),
  dynamicTimestepShift: flag("move timesteps towards noise the more, the larger the image, as FLUX does"),
  minTimestep: integer("the first timestep that is trained", { min: 0 }).withDefault(TIMESTEP_DEFAULTS.minTimestep),
  maxTimestep: integer("the timestep before which training ends; by default all", { min: 1 }),
};

/** Part of `TRAINING_OPTIONS`. */
export const OBJECTIVE_OPTIONS = { ...PREDICTION_OPTIONS, ...LOSSES, ...NOISE, ...TIMESTEPS };

/** Values of {@link OBJECTIVE_OPTIONS}. */
export type ObjectiveOptionValues = OptionValues<typeof OBJECTIVE_OPTIONS>;

type Name = keyof ObjectiveOptionValues;

/** Options without effect unless others have certain values. */
const NEEDS: readonly { of: readonly Name[]; isMet(values: ObjectiveOptionValues): boolean; need: [Name, string] }[] = [
  {
    of: ["huberC", "huberSchedule"],
    isMet: ({ loss }) => loss === "huber" || loss === "smooth-l1",
    need: ["loss", "huber or smooth-l1"],
  },
  {
    of: ["minSnrGamma"],
    isMet: ({ lossWeighting }) => (lossWeighting ?? "min-snr") === "min-snr",
    need: ["lossWeighting", "min-snr, or none given"],
  },
  { of: ["p2Gamma", "p2K"], isMet: ({ lossWeighting }) => lossWeighting === "p2", need: ["lossWeighting", "p2"] },
  { of: ["noiseOffsetRandom"], isMet: ({ noiseOffset }) => noiseOffset > 0, need: ["noiseOffset", "above 0"] },
  {
    of: ["inputPerturbationRandom"],
    isMet: ({ inputPerturbation }) => inputPerturbation > 0,
    need: ["inputPerturbation", "above 0"],
  },
  {
    of: ["multiresNoiseDiscount"],
    isMet: ({ multiresNoiseIterations }) => multiresNoiseIterations > 0,
    need: ["multiresNoiseIterations", "above 0"],
  },
  {
    of: ["logitMean", "logitStd"],
    isMet: ({ timestepSampling }) => timestepSampling === "logit-normal",
    need: ["timestepSampling", "logit-normal"],
  },
  {
    of: ["modeScale"],
    isMet: ({ timestepSampling }) => timestepSampling === "mode",
    need: ["timestepSampling", "mode"],
  },
  {
    of: ["dynamicTimestepShift"],
    isMet: ({ timestepShift }) => timestepShift === undefined,
    need: ["timestepShift", "left out"],
  },
  {
    of: ["minTimestep"],
    isMet: ({ minTimestep, maxTimestep = Number.POSITIVE_INFINITY }) => minTimestep < maxTimestep,
    need: ["maxTimestep", "above it"],
  },
];

/** What contradicts itself in the options, or would have no effect; options are named by `name`. */
export function objectiveProblem(
  values: ObjectiveOptionValues,
  name: (option: string) => string = String,
): string | undefined {
  for (const { of, isMet, need } of NEEDS) {
    const set = of.find((option) => values[option] !== OBJECTIVE_OPTIONS[option].defaultValue);
    if (set === undefined || isMet(values)) continue;
    return `${name(set)} ${values[set]} needs ${name(need[0])} ${need[1]}; got ${values[need[0]] ?? "none"}.`;
  }
  return undefined;
}

/** An option for masks that is set where no image has one, if any. */
export function maskProblem(
  values: Pick<ObjectiveOptionValues, "unmaskedWeight" | "normalizeMaskedLoss">,
  { hasMasks }: { readonly hasMasks: boolean },
): string | undefined {
  const set = (["unmaskedWeight", "normalizeMaskedLoss"] as const).find((option) => values[option]);
  if (hasMasks || set === undefined) return undefined;
  return `${set} ${values[set]} needs images with masks; none has one.`;
}

/** What `createObjective` takes of the options. */
export const objectiveOptionsOf = (values: ObjectiveOptionValues): ObjectiveOptions =>
  pickValues({ ...PREDICTION_OPTIONS, ...LOSSES }, values);

/** What batches take of the options. */
export function noisingOptionsOf(values: ObjectiveOptionValues): NoisingOptions {
  const { unmaskedWeight, normalizeMaskedLoss } = values;
  return { ...pickValues({ ...NOISE, ...TIMESTEPS }, values), unmaskedWeight, normalizeMaskedLoss };
}
