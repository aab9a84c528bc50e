import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { EulerAncestralDiscreteScheduler } from "./euler-ancestral-discrete-scheduler.js";
import { EulerDiscreteScheduler } from "./euler-discrete-scheduler.js";

const LATENT = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };

describe("EulerAncestralDiscreteScheduler", () => {
  it("goes down to sigma'²/sigma and comes back up to sigma' by noise", () => {
    const scheduler = new EulerAncestralDiscreteScheduler({ ...LATENT, prediction_type: "sample" });
    scheduler.setTimesteps(4);
    const [from, to] = scheduler.sigmas as unknown as [number, number];
    const { prevSample, predOriginalSample } = scheduler.step(tensor([2]), scheduler.timesteps[0]!, tensor([5]), {
      noise: tensor([0.3]),
    });
    const down = (to * to) / from;
    expect(prevSample.data[0]).toBeCloseTo(2 + (3 * down) / from + 0.3 * Math.sqrt(to * to - down * down), 5);
    expect(predOriginalSample?.data[0]).toBe(2);
  });

  it("ends at the clean sample, whatever the noise", () => {
    const scheduler = new EulerAncestralDiscreteScheduler({ ...LATENT, prediction_type: "sample" });
    scheduler.setTimesteps(3);
    let x = tensor([1.5]);
    for (const t of scheduler.timesteps) x = scheduler.step(tensor([0.25]), t, x, { noise: tensor([9]) }).prevSample;
    expect(x.data[0]).toBeCloseTo(0.25, 6);
  });

  it("has the timesteps, noise levels and scaling of Euler", () => {
    for (const timestep_spacing of ["linspace", "leading", "trailing"]) {
      const config = { ...LATENT, timestep_spacing, rescale_betas_zero_snr: true };
      const [ancestral, euler] = [new EulerAncestralDiscreteScheduler(config), new EulerDiscreteScheduler(config)];
      for (const scheduler of [ancestral, euler]) scheduler.setTimesteps(7);
      expect(ancestral.timesteps).toEqual(euler.timesteps);
      expect(ancestral.sigmas).toEqual(euler.sigmas);
      expect(ancestral.initNoiseSigma).toBe(euler.initNoiseSigma);
    }
  });

  it("draws its noise once in every step, and refuses to go without it or on with another shape", () => {
    const scheduler = new EulerAncestralDiscreteScheduler(LATENT);
    scheduler.setTimesteps(2);
    const x = zeros([1, 2]);
    const [first, second] = scheduler.timesteps as [number, number];
    expect(() => scheduler.step(x, first, x)).toThrow(/pass options\.noise/);
    expect(() => scheduler.step(x, first, x, { noise: zeros([2]) })).toThrow(/same shape/);
    let draws = 0;
    const noise = () => {
      draws++;
      return x;
    };
    scheduler.step(x, first, x, { noise });
    scheduler.step(x, second, x, { noise });
    expect(draws).toBe(2);
    expect(() => scheduler.step(x, second, x, { noise })).toThrow(/run is over/);
  });
});
