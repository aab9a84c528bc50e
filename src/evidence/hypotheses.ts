// What might make routed experts pay: variants of FeRA, each with what was predicted before any was run. They are tried on the
// style that learning rates are tuned on; what does best there is confirmed on the others.

import { feraMethod, type Method, SCALE } from "./methods.js";

/** A guess that can turn out wrong. */
export interface Hypothesis {
  method: Method;
  /** What is expected, and why. */
  prediction: string;
  /** Sign of the expected difference to LoRA's held-out error: −1 less, 0 no difference to speak of, 1 more. */
  expected: -1 | 0 | 1;
}

const hypothesis = (method: Method, expected: Hypothesis["expected"], prediction: string): Hypothesis => ({
  ...{ method, prediction, expected },
});

/** Tried on the tuning style, and never changed after a run of them: new ones are added behind. */
export const HYPOTHESES: readonly Hypothesis[] = [
  hypothesis(
    feraMethod("h-scale-third", "a third of the scale", { scale: SCALE / 3 }),
    1,
    "Worse: alpha 48 went ahead of 8 and 24 for FeRA and LoRA alike, so scale and not routing made those differences.",
  ),
  hypothesis(
    feraMethod("h-scale-triple", "three times the scale", { scale: SCALE * 3 }),
    -1,
    "Better: an expert with a small gate gets a small gradient; a larger scale makes up for that.",
  ),
  hypothesis(
    feraMethod("h-router-fast", "router at ten times the rate", {}, { routerLr: 10 }),
    -1,
    "Better: at the adapters' rate the router hardly leaves its beginning in some hundred steps.",
  ),
  hypothesis(
    feraMethod("h-sharp", "temperature 0.2", { routerTau: 0.2 }),
    0,
    "No difference: sharper gates separate experts, and close some of them, which costs as much as it gains.",
  ),
  hypothesis(
    feraMethod("h-balance", "balance loss 0.01", { balanceWeight: 0.01 }, { routerLr: 10 }),
    -1,
    "Better: one gate of 0.98 leaves two thirds of the parameters idle; what keeps all open gives them work.",
  ),
  hypothesis(
    feraMethod("h-from-energies", "gates begin as the energies", { router: "from-energies" }),
    -1,
    "Better than the published beginning: experts differ from the first step on, each by its band.",
  ),
  hypothesis(
    feraMethod("h-relative", "energies relative to the timestep", { router: "relative-energies" }, { routerLr: 10 }),
    0,
    "No difference to equal gates: what energies tell of an image at a timestep is little; if so, FeRA routes by the clock.",
  ),
  hypothesis(
    feraMethod(
      "h-timestep-fast",
      "gates from the timestep, router at ten times the rate",
      { router: "timestep" },
      {
        routerLr: 10,
      },
    ),
    -1,
    "As good as or better than energies: the clock without noise in it.",
  ),
  hypothesis(
    feraMethod("h-six", "six experts of a sixth of the rank", { numExperts: 6 }),
    1,
    "Worse: ranks of four are too low for what an open expert must do alone.",
  ),
  hypothesis(
    feraMethod("h-two", "two experts of half the rank", { numExperts: 2 }),
    -1,
    "Better than three: coarse and fine is all that the gates tell apart.",
  ),
  hypothesis(
    feraMethod("h-shared-fast", "one A, router at ten times the rate", { sharedDown: true }, { routerLr: 10 }),
    -1,
    "Better: all steps train A, only what follows it is divided, at a higher rank for the same parameters.",
  ),
  hypothesis(
    feraMethod("h-shared-energies", "one A, gates begin as the energies", {
      ...{ sharedDown: true, router: "from-energies" },
    }),
    -1,
    "The best of all: both of the above.",
  ),
  hypothesis(
    feraMethod("h-coarse-bands", "blur of min(H, W) / 16", { sigma: { rule: "latent", divisor: 16 } }),
    0,
    "No difference: bands of larger shapes vary more between images, but the router does not use it.",
  ),
  hypothesis(
    feraMethod("h-many-bands", "six bands", { numBands: 6 }),
    0,
    "No difference: more bands tell more of the image, and three gates cannot use it.",
  ),
  hypothesis(
    feraMethod("h-slow", "half of the learning rate", {}, { rateFactor: 0.5 }),
    1,
    "Worse: the rate was tuned.",
  ),
  hypothesis(
    feraMethod("h-blocks", "gates for each block", { router: "energies-by-block" }, { routerLr: 10 }),
    -1,
    "Better: coarse blocks make shapes and fine ones edges, and one vector of gates must open the same expert for both.",
  ),
  hypothesis(
    feraMethod("h-sparse", "six experts, the largest two gates", { numExperts: 6, topExperts: 2 }, { routerLr: 10 }),
    1,
    "Worse: a third of the parameters acts on a sample, and which it is hardly differs between samples.",
  ),
];
