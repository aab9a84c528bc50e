import { describe, expect, it } from "vitest";
import { tensor } from "../tensor/tensor.js";
import { EulerDiscreteScheduler } from "./euler-discrete-scheduler.js";

const LATENT = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };
const X = tensor([0.7, -0.4]);

describe("EulerDiscreteScheduler", () => {
  it("scales the model's input to unit variance", () => {
    const scheduler = new EulerDiscreteScheduler(LATENT);
    scheduler.setTimesteps(10);
    const scaled = scheduler.scaleModelInput(X, 999);
    expect(scheduler.sigmas[0]).toBeCloseTo(14.6146, 3);
    expect(scaled.data[0]).toBeCloseTo(0.7 / Math.hypot(14.6146, 1), 5);
    expect(scheduler.initNoiseSigma).toBe(scheduler.sigmas[0]);
    expect(X.data[0]).toBeCloseTo(0.7, 6);
  });

  it("ends without noise, or at the smallest training noise level", () => {
    for (const [final_sigmas_type, last] of [
      ["zero", 0],
      ["sigma_min", 0.02917],
    ] as const) {
      const scheduler = new EulerDiscreteScheduler({ ...LATENT, final_sigmas_type });
      scheduler.setTimesteps(4);
      expect(scheduler.sigmas).toHaveLength(5);
      expect(scheduler.sigmas[4]).toBeCloseTo(last, 4);
    }
  });

  it("has fractional timesteps that survive a float32 tensor", () => {
    const scheduler = new EulerDiscreteScheduler(LATENT);
    scheduler.setTimesteps(12);
    expect(scheduler.timesteps[1]).toBeCloseTo(908.1818, 3);
    const noisy = scheduler.addNoise(X, tensor([1, 1]), tensor(scheduler.timesteps.slice(1, 2)));
    expect(noisy.data[0]).toBeCloseTo(0.7 + scheduler.sigmas[1]!, 5);
  });

  it("goes through its timesteps in order, from anywhere, until setTimesteps", () => {
    const scheduler = new EulerDiscreteScheduler({ ...LATENT, timestep_spacing: "leading" });
    scheduler.setTimesteps(4);
    expect(() => scheduler.step(X, 600, X)).toThrow(/none of the timesteps/);
    scheduler.step(X, 500, X);
    expect(() => scheduler.step(X, 500, X)).toThrow(/due is 250; got 500/);
    scheduler.step(X, 250, X);
    scheduler.step(X, 0, X);
    expect(() => scheduler.step(X, 0, X)).toThrow(/the run is over/);
    scheduler.setTimesteps(4);
    expect(() => scheduler.step(X, 750, X)).not.toThrow();
  });

  it("refuses a timestep that is not of this run when adding noise", () => {
    const scheduler = new EulerDiscreteScheduler(LATENT);
    expect(() => scheduler.addNoise(X, X, tensor([17], [1], "int64"))).not.toThrow();
    scheduler.setTimesteps(4);
    expect(() => scheduler.addNoise(X, X, tensor([17], [1], "int64"))).toThrow(/none of the timesteps/);
  });

  it("refuses noise levels and interpolations that it does not have", () => {
    for (const options of [
      { use_beta_sigmas: true },
      { use_exponential_sigmas: true, use_karras_sigmas: true },
      { interpolation_type: "log_linear" },
      { timestep_type: "continuous" },
      { sigma_max: 80 },
    ]) {
      expect(() => new EulerDiscreteScheduler(options)).toThrow(new RegExp(Object.keys(options)[0]!));
    }
  });
});
