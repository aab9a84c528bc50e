// What a denoiser is trained to predict: noise, noise levels and losses.

import { number } from "./option.js";

/** Part of `TRAINING_OPTIONS`. */
export const OBJECTIVE_OPTIONS = {
  noiseOffset: number(
    "strength of the noise that a channel has as a whole, for darker and brighter images; 0 for none",
    {
      min: 0,
    },
  ).withDefault(0),
};
