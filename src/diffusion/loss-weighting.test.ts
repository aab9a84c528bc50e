import { beforeAll, describe, expect, it } from "vitest";
import { type ObjectiveGolden, objectiveGolden } from "../../test/support/objective-golden.js";
import { relativeError } from "../../test/support/relative-error.js";
import { createObjective, type ObjectiveOptions } from "./objective.js";

/** Of float32 alphas, whose complement loses digits near timestep 0. */
const TOLERANCE = 1e-6;
const every = Array.from({ length: 1000 }, (_, timestep) => timestep);

let golden: ObjectiveGolden;
beforeAll(async () => {
  golden = await objectiveGolden();
});

describe("weights by noise level agree with diffusers' and kohya's, at every timestep", () => {
  it.each([
    ["sd.min_snr.epsilon", { lossWeighting: "min-snr" }],
    ["sd.min_snr.epsilon", { minSnrGamma: 5 }],
    ["sd.min_snr.v_prediction", { minSnrGamma: 5, predictionType: "v_prediction" }],
    ["sd.min_snr.sample", { minSnrGamma: 5, predictionType: "sample" }],
    ["sd.debiased.epsilon", { lossWeighting: "debiased" }],
    ["sd.debiased.v_prediction", { lossWeighting: "debiased", predictionType: "v_prediction" }],
    ["sd.p2.epsilon", { lossWeighting: "p2", p2Gamma: 0.5 }],
    ["sd.v_like.epsilon", { vPredLikeLoss: 0.3 }],
    ["zero.scaled.v_prediction", { minSnrGamma: 5, scaleVPredLossLikeNoisePred: true }],
    ["zero.min_snr.v_prediction", { minSnrGamma: 5 }],
    ["zero.min_snr.sample", { minSnrGamma: 5, predictionType: "sample" }],
    ["zero.debiased.v_prediction", { lossWeighting: "debiased" }],
  ] as [string, ObjectiveOptions][])("%s with %j", (name, options) => {
    const config = golden.settings.configs[name.split(".")[0] as "sd"];
    const objective = createObjective(config, options);
    expect(relativeError(every.map(objective.lossWeight), golden.tensor(name).data)).toBeLessThan(TOLERANCE);
  });

  it.each(["sigma_sqrt", "cosmap"])("%s of flow", (scheme) => {
    const lossWeighting = scheme.replace("_", "-") as "cosmap";
    const objective = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler" }, { lossWeighting });
    const weights = every.map((timestep) => objective.lossWeight(timestep + 1));
    expect(relativeError(weights, golden.tensor(`flow.${scheme}`).data)).toBeLessThan(TOLERANCE);
  });
});

it("min-snr weighs the same error in the image alike, whatever is predicted", () => {
  const timestep = 640;
  for (const predictionType of ["epsilon", "v_prediction", "sample"] as const) {
    const objective = createObjective({}, { minSnrGamma: 0.3, predictionType });
    const { alpha, sigma } = objective.levelAt(timestep);
    // An output off by d makes x̂_0 off by this times d.
    const inImage = { epsilon: sigma / alpha, v_prediction: sigma, sample: 1 }[predictionType];
    const expected = Math.min((alpha / sigma) ** 2, 0.3) * inImage ** 2;
    expect(objective.lossWeight(timestep)).toBeCloseTo(expected, 12);
  }
  const flow = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler" }, { minSnrGamma: 0.3 });
  expect(flow.lossWeight(timestep)).toBeCloseTo(0.3 * 0.64 ** 2, 12);
  expect(flow.lossWeight(0)).toBe(0);
});

it.each([
  [
    "debiased",
    { lossWeighting: "debiased", predictionType: "sample" },
    /"debiased" is for models that predict epsilon or v/,
  ],
  [
    "p2",
    { lossWeighting: "p2", predictionType: "v_prediction" },
    /"p2" is for models that predict epsilon; .* v_prediction/,
  ],
  ["cosmap", { lossWeighting: "cosmap" }, /"cosmap" is for models that predict flow_prediction/],
  [
    "two of them",
    { lossWeighting: "p2", minSnrGamma: 5 },
    /minSnrGamma is of lossWeighting min-snr; got lossWeighting p2/,
  ],
  [
    "a scale of v",
    { scaleVPredLossLikeNoisePred: true },
    /for models that predict v_prediction; this one predicts epsilon/,
  ],
  [
    "a loss like that of v",
    { vPredLikeLoss: 1, predictionType: "sample" },
    /vPredLikeLoss is for models that predict epsilon; this one predicts sample/,
  ],
  ["an unknown one", { lossWeighting: "max-snr" }, /lossWeighting must be one of none, min-snr/],
  ["no gamma", { minSnrGamma: 0 }, /minSnrGamma must be a finite number above 0; got 0/],
] as unknown as [string, ObjectiveOptions, RegExp][])("refuses %s where it has no meaning", (_, options, message) => {
  expect(() => createObjective({}, options)).toThrow(message);
});

it("refuses weights that are infinite where nothing of the image is left", () => {
  const config = { rescale_betas_zero_snr: true };
  expect(() => createObjective(config, { lossWeighting: "debiased" })).toThrow(/is Infinity at timestep 999/);
  expect(createObjective(config, { minSnrGamma: 5 }).lossWeight(999)).toBe(1);
});
