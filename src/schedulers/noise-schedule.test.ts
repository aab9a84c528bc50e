import { describe, expect, it } from "vitest";
import { linspace, type NoiseScheduleConfig, noiseAlphasCumprod, noiseBetas } from "./noise-schedule.js";

const BASE: NoiseScheduleConfig = {
  num_train_timesteps: 1000,
  beta_start: 0.0001,
  beta_end: 0.02,
  beta_schedule: "linear",
  trained_betas: null,
};

describe("noiseBetas", () => {
  it("spaces linear betas evenly, in float32", () => {
    const betas = noiseBetas("test", { ...BASE, num_train_timesteps: 3, beta_start: 0.1, beta_end: 0.3 });
    expect([...betas].map((beta) => beta.toFixed(7))).toEqual(["0.1000000", "0.2000000", "0.3000000"]);
    expect(betas).toEqual(betas.map(Math.fround));
    expect([...noiseBetas("test", { ...BASE, num_train_timesteps: 1 })]).toEqual([Math.fround(0.0001)]);
  });

  it("spaces the roots of scaled_linear betas evenly", () => {
    const options = {
      num_train_timesteps: 3,
      beta_start: 0.01,
      beta_end: 0.09,
      beta_schedule: "scaled_linear",
    } as const;
    expect(noiseBetas("test", { ...BASE, ...options })[1]).toBeCloseTo(0.04, 8);
  });

  it("caps the cosine schedule at 0.999", () => {
    const betas = noiseBetas("test", { ...BASE, beta_schedule: "squaredcos_cap_v2" });
    expect(betas.at(-1)).toBe(Math.fround(0.999));
    expect(betas[0]).toBeCloseTo(4.1284e-5, 8);
    expect(betas.every((beta, t) => t === 0 || beta >= betas[t - 1]!)).toBe(true);
  });

  it("takes trained betas as they are, and refuses a wrong number of them", () => {
    const trained = { ...BASE, num_train_timesteps: 2, trained_betas: [0.5, 0.25] };
    expect([...noiseBetas("test", trained)]).toEqual([0.5, 0.25]);
    expect([...noiseAlphasCumprod("test", trained)]).toEqual([0.5, 0.375]);
    expect(() => noiseBetas("test", { ...trained, num_train_timesteps: 3 })).toThrow(/2 for 3/);
  });
});

describe("noiseAlphasCumprod", () => {
  it("agrees with the known end of the Stable Diffusion schedule", () => {
    const options = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" } as const;
    const alphas = noiseAlphasCumprod("test", { ...BASE, ...options });
    expect(alphas[0]).toBeCloseTo(0.99915, 7);
    expect(alphas[999]).toBeCloseTo(0.00466, 5);
  });

  it("ends at exactly 0 and keeps its start when rescaled to zero terminal SNR", () => {
    const plain = noiseAlphasCumprod("test", BASE);
    const rescaled = noiseAlphasCumprod("test", { ...BASE, rescale_betas_zero_snr: true });
    expect(rescaled[999]).toBe(0);
    expect(rescaled[0]).toBeCloseTo(plain[0]!, 6);
    expect(rescaled.every((alpha, t) => t === 0 || alpha < rescaled[t - 1]!)).toBe(true);
  });

  it("agrees with torch's float32 to the last bit where spacings depend on it", () => {
    // diffusers 0.42, torch 2.15: DDPMScheduler(…).alphas_cumprod[[0, 499, 999]]
    const latent = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" } as const;
    expect(Array.from([0, 499, 999], (t) => noiseAlphasCumprod("test", { ...BASE, ...latent })[t]!)).toEqual([
      0.9991499781608582, 0.27766942977905273, 0.00466009508818388,
    ]);
    expect(Array.from([0, 499, 999], (t) => noiseAlphasCumprod("test", BASE)[t]!)).toEqual([
      0.9998999834060669, 0.07858723402023315, 4.035830352222547e-5,
    ]);
  });

  it("refuses to rescale a single timestep", () => {
    expect(() => noiseAlphasCumprod("test", { ...BASE, num_train_timesteps: 1, rescale_betas_zero_snr: true })).toThrow(
      /at least 2/,
    );
  });
});

it("linspace ends exactly where it should, and starts where it should with one value", () => {
  expect([...linspace(0, 1, 3)]).toEqual([0, 0.5, 1]);
  expect([...linspace(5, 9, 1)]).toEqual([5]);
});
