// The parts of the study, in the order in which they are run.

export const PARTS = [
  ...(["rates", "speed", "main", "same-rate", "best-rate", "all-names", "time"] as const),
  ...(["long", "long-confirm", "few-shot", "subject"] as const),
  ...(["consistency", "bands", "sigma", "numbers", "hypotheses", "confirm"] as const),
] as const;
export type Part = (typeof PARTS)[number];

/** What each part is for. */
export const PART_TITLES: Readonly<Record<Part, string>> = {
  rates: "learning rate of each method, tuned on another style",
  speed: "seconds a step and memory, one run at a time",
  main: "every method, every style, at equal steps and parameters",
  "same-rate": "LoRA at the rates that FeRA's forms were tuned to: is it the routing or the rate?",
  "best-rate": "FeRA's forms at the best of those rates for LoRA",
  "all-names": "held-out error of those three on all held-out names",
  time: "the same at the training time of LoRA",
  long: "whether it is the same after four times the steps",
  "long-confirm": "two kinds of gates after as many steps, on the styles that did not show it",
  "few-shot": "a style from 8, 32 and 128 drawings",
  subject: "one thing in several drawings",
  consistency: "weight of the consistency loss",
  bands: "definition of the bands",
  sigma: "blur of the finest band",
  numbers: "numbers of bands and experts",
  hypotheses: "variants that might make routing pay, tried on the tuning style",
  confirm: "the two best of those, on the styles that did not choose them",
};
