import { describe, expect, it } from "vitest";
import {
  exponentialSigmas,
  karrasSigmas,
  nearestTimestepOfSigma,
  noiseLevel,
  sigmaAt,
  sigmaSchedule,
  timestepOfSigma,
  trainingSigmas,
} from "./sigmas.js";

const SIGMAS = trainingSigmas(Float64Array.of(0.8, 0.5, 0.2, 0));

describe("noise levels", () => {
  it("are sqrt((1 − ᾱ)/ᾱ), and finite where nothing but noise is left", () => {
    expect(SIGMAS[0]).toBeCloseTo(0.5, 7);
    expect(SIGMAS[1]).toBeCloseTo(1, 7);
    expect(SIGMAS[2]).toBeCloseTo(2, 6);
    expect(SIGMAS[3]).toBe(4096);
    expect(trainingSigmas(Float64Array.of(1e-9))[0]).toBeCloseTo(31622.78, 1);
  });

  it("interpolate between timesteps and stay within the schedule", () => {
    expect(sigmaAt(SIGMAS, 1.25)).toBeCloseTo(1.25, 6);
    expect(sigmaAt(SIGMAS, 3)).toBe(SIGMAS[3]);
  });

  it("map back to their timesteps", () => {
    SIGMAS.forEach((sigma, t) => {
      expect(timestepOfSigma(SIGMAS, sigma)).toBeCloseTo(t, 6);
    });
    expect(timestepOfSigma(SIGMAS, Math.SQRT2)).toBeCloseTo(1.5, 6);
    expect(nearestTimestepOfSigma(SIGMAS, 1.9)).toBe(2);
    expect(timestepOfSigma(SIGMAS, 0.1)).toBe(0);
    expect(timestepOfSigma(SIGMAS, 1e9)).toBe(3);
    expect(timestepOfSigma(Float64Array.of(1), 5)).toBe(0);
  });
});

it("karrasSigmas falls from max to min, and is only max with one step", () => {
  const sigmas = karrasSigmas(0.03, 14.6, 5);
  expect(sigmas[0]).toBeCloseTo(14.6, 10);
  expect(sigmas[4]).toBeCloseTo(0.03, 12);
  expect(sigmas[2]).toBeCloseTo(((14.6 ** (1 / 7) + 0.03 ** (1 / 7)) / 2) ** 7, 12);
  expect(karrasSigmas(0.03, 14.6, 1)[0]).toBeCloseTo(14.6, 10);
});

it("exponentialSigmas falls from max to min in equal ratios, and is only max with one step", () => {
  const sigmas = exponentialSigmas(0.03, 14.6, 4);
  expect(sigmas[0]).toBeCloseTo(14.6, 10);
  expect(sigmas[3]).toBeCloseTo(0.03, 12);
  expect(sigmas[1]! / sigmas[0]!).toBeCloseTo(sigmas[3]! / sigmas[2]!, 12);
  expect(exponentialSigmas(0.03, 14.6, 1)[0]).toBeCloseTo(14.6, 10);
});

it("sigmaSchedule takes the one that is asked for, and refuses two", () => {
  expect(sigmaSchedule("test", {})).toBeUndefined();
  expect(sigmaSchedule("test", { use_karras_sigmas: true, use_exponential_sigmas: null })).toBe(karrasSigmas);
  expect(sigmaSchedule("test", { use_exponential_sigmas: true })).toBe(exponentialSigmas);
  expect(() => sigmaSchedule("test", { use_karras_sigmas: true, use_exponential_sigmas: true })).toThrow(
    /test: use_karras_sigmas and use_exponential_sigmas/,
  );
});

it("noiseLevel keeps alpha² + s² = 1, with an infinite lambda where there is no noise", () => {
  const { alpha, s, lambda } = noiseLevel(0.75);
  expect([alpha, s]).toEqual([expect.closeTo(0.8, 12), expect.closeTo(0.6, 12)]);
  expect(lambda).toBeCloseTo(Math.log(0.8 / 0.6), 12);
  expect(noiseLevel(0)).toEqual({ alpha: 1, s: 0, lambda: Number.POSITIVE_INFINITY });
});
