import { expect, it } from "vitest";
import { maskProblem, OBJECTIVE_OPTIONS, objectiveProblem } from "./objective-options.js";
import { withDefaults } from "./option.js";

const problemOf = (given: object) =>
  objectiveProblem(withDefaults(OBJECTIVE_OPTIONS, given, "test"), (name) => `--${name}`);

it.each([
  [{ huberC: 0.5 }, "--huberC 0.5 needs --loss huber or smooth-l1; got mse."],
  [{ minSnrGamma: 5, lossWeighting: "p2" }, "--minSnrGamma 5 needs --lossWeighting min-snr, or none given; got p2."],
  [{ p2K: 2 }, "--p2K 2 needs --lossWeighting p2; got none."],
  [{ noiseOffsetRandom: true }, "--noiseOffsetRandom true needs --noiseOffset above 0; got 0."],
  [{ inputPerturbationRandom: true }, "--inputPerturbationRandom true needs --inputPerturbation above 0; got 0."],
  [{ multiresNoiseDiscount: 0.8 }, "--multiresNoiseDiscount 0.8 needs --multiresNoiseIterations above 0; got 0."],
  [{ logitMean: 1, timestepSampling: "mode" }, "--logitMean 1 needs --timestepSampling logit-normal; got mode."],
  [{ modeScale: 1 }, "--modeScale 1 needs --timestepSampling mode; got uniform."],
  [
    { dynamicTimestepShift: true, timestepShift: 3 },
    "--dynamicTimestepShift true needs --timestepShift left out; got 3.",
  ],
  [{ minTimestep: 500, maxTimestep: 400 }, "--minTimestep 500 needs --maxTimestep above it; got 400."],
])("says of %j that an option would have no effect, or contradicts another", (given, problem) => {
  expect(problemOf(given)).toBe(problem);
});

it("options of masks need images with masks", () => {
  const options = { unmaskedWeight: 0.1, normalizeMaskedLoss: false };
  expect(maskProblem(options, { hasMasks: false })).toBe("unmaskedWeight 0.1 needs images with masks; none has one.");
  expect(maskProblem(options, { hasMasks: true })).toBeUndefined();
  expect(maskProblem({ ...options, unmaskedWeight: 0 }, { hasMasks: false })).toBeUndefined();
});

it.each([
  {},
  { loss: "smooth-l1", huberC: 0.5, huberSchedule: "constant" },
  { minSnrGamma: 5 },
  { minSnrGamma: 5, lossWeighting: "min-snr" },
  { lossWeighting: "p2", p2Gamma: 0.5 },
  { timestepSampling: "logit-normal", logitStd: 0.5, minTimestep: 10 },
])("finds nothing wrong with %j", (given) => {
  expect(problemOf(given)).toBeUndefined();
});
