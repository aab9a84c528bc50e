import { describe, expect, it } from "vitest";
import { karrasSigmas, nearestTimestepOfSigma, sigmaAt, timestepOfSigma, trainingSigmas } from "./sigmas.js";

const SIGMAS = trainingSigmas(Float64Array.of(0.8, 0.5, 0.2, 0));

describe("noise levels", () => {
  it("are sqrt((1 − ᾱ)/ᾱ), and finite where nothing but noise is left", () => {
    expect(SIGMAS[0]).toBeCloseTo(0.5, 12);
    expect(SIGMAS[1]).toBeCloseTo(1, 12);
    expect(SIGMAS[2]).toBeCloseTo(2, 12);
    expect(SIGMAS[3]).toBeCloseTo(4096, 3);
  });

  it("interpolate between timesteps and stay within the schedule", () => {
    expect(sigmaAt(SIGMAS, 1.25)).toBeCloseTo(1.25, 12);
    expect(sigmaAt(SIGMAS, 3)).toBe(SIGMAS[3]);
  });

  it("map back to their timesteps", () => {
    SIGMAS.forEach((sigma, t) => {
      expect(timestepOfSigma(SIGMAS, sigma)).toBeCloseTo(t, 12);
    });
    expect(timestepOfSigma(SIGMAS, Math.SQRT2)).toBeCloseTo(1.5, 12);
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
