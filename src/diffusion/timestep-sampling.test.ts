import { beforeAll, describe, expect, it } from "vitest";
import { type ObjectiveGolden, objectiveGolden } from "../../test/support/objective-golden.js";
import { relativeError } from "../../test/support/relative-error.js";
import { Generator, rand, randint } from "../tensor/random.js";
import { dynamicShift } from "./noise-process.js";
import { createObjective } from "./objective.js";
import {
  checkTimestepOptions,
  drawTimesteps,
  type TimestepOptions,
  type TimestepSampling,
} from "./timestep-sampling.js";

const COUNT = 24;
const TOLERANCE = 1e-6;
const discrete = createObjective({});
const flow = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler" });
const draw = (options: TimestepOptions, objective = discrete, size = { latentHeight: 64, latentWidth: 64 }, seed = 3) =>
  drawTimesteps(options, { objective, count: COUNT, ...size, generator: new Generator(seed) });

let golden: ObjectiveGolden;
beforeAll(async () => {
  golden = await objectiveGolden();
});

describe("timesteps", () => {
  it.each([
    ["logit_normal", "logit-normal"],
    ["mode", "mode"],
    ["none", "uniform"],
  ] as [string, TimestepSampling][])(
    "of %s are spread as diffusers' from the same seed",
    (scheme, timestepSampling) => {
      const { logit, modeScale } = golden.settings;
      const own = timestepSampling === "logit-normal" ? { logitMean: logit.logit_mean, logitStd: logit.logit_std } : {};
      const options = { timestepSampling, ...own, ...(timestepSampling === "mode" && { modeScale }) };
      const expected = golden.tensor(`density.${scheme}`).data;
      const places = draw(options, flow).map((timestep) => timestep / 1000);
      expect(relativeError(places, expected)).toBeLessThan(TOLERANCE);
      if (timestepSampling === "uniform") return;
      // Of integers, the one that the place falls into.
      const integers = draw(options);
      integers.forEach((timestep, i) => {
        expect(Math.abs(timestep + 0.5 - 1000 * expected[i]!)).toBeLessThanOrEqual(0.5 + 1e-3);
      });
    },
  );

  it("of integers, uniform, are randint's", () => {
    const generator = new Generator(3);
    expect(draw({})).toEqual(Array.from(randint(0, 1000, [COUNT], { generator }).data, Number));
  });

  it("are shifted by the image's size as FLUX's are", () => {
    const dynamic = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true });
    for (const [latentHeight, latentWidth] of golden.settings.sizes) {
      const size = { latentHeight, latentWidth };
      const expected = golden.tensor(`shifted.${latentHeight}x${latentWidth}`).data.map((u) => 1000 * u);
      expect(relativeError(draw({}, dynamic, size), expected)).toBeLessThan(TOLERANCE);
      expect(draw({ dynamicTimestepShift: true }, flow, size)).toEqual(draw({}, dynamic, size));
      expect(draw({ timestepShift: 1 }, dynamic, size)).toEqual(draw({}, flow, size));
    }
    expect(dynamicShift(128, 128)).toBeCloseTo(Math.exp(1.15), 12);
  });

  it("are shifted by the scheduler's own shift unless told otherwise", () => {
    const shifted = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 });
    const uniform = rand([COUNT], { generator: new Generator(3) }).data;
    const expected = uniform.map((u) => (1000 * 3 * u) / (1 + 2 * u));
    expect(relativeError(draw({}, shifted), expected)).toBeLessThan(TOLERANCE);
    expect(draw({ timestepShift: 3 }, flow)).toEqual(draw({}, shifted));
  });

  it.each(["uniform", "stratified", "logit-normal", "mode"] as const)(
    "of %s stay in their range",
    (timestepSampling) => {
      const range = { minTimestep: 200, maxTimestep: 210 };
      for (const objective of [discrete, flow]) {
        const timesteps = [1, 2, 3].flatMap((seed) => draw({ timestepSampling, ...range }, objective, undefined, seed));
        expect(Math.min(...timesteps)).toBeGreaterThanOrEqual(200);
        expect(Math.max(...timesteps)).toBeLessThanOrEqual(objective.isContinuous ? 210 : 209);
        expect(new Set(timesteps).size).toBeGreaterThan(5);
      }
    },
  );

  it("of stratified batches come one from each part of the range", () => {
    const sorted = draw({ timestepSampling: "stratified" }).sort((a, b) => a - b);
    sorted.forEach((timestep, i) => {
      expect(Math.floor((timestep * COUNT) / 1000)).toBeGreaterThanOrEqual(i - 1);
      expect(Math.floor((timestep * COUNT) / 1000)).toBeLessThanOrEqual(i);
    });
  });
});

it.each([
  [
    { timestepSampling: "gaussian" },
    /timestepSampling must be one of uniform, stratified, logit-normal, mode; got "gaussian"/,
  ],
  [{ timestepShift: 0 }, /timestepShift must be a finite number above 0; got 0/],
  [{ logitStd: 0 }, /logitStd must be a finite number above 0/],
  [{ modeScale: 2 }, /modeScale must be from -1 to 1.7519; got 2/],
  [{ maxTimestep: 1001 }, /maxTimestep must be an integer of 1000 or less; got 1001/],
  [{ minTimestep: 500, maxTimestep: 500 }, /minTimestep must be below maxTimestep 500; got 500/],
  [{ timestepShift: 2, dynamicTimestepShift: true }, /exclude each other/],
])("refuses %j", (options, message) => {
  expect(() => checkTimestepOptions(options as TimestepOptions, 1000)).toThrow(message);
});
