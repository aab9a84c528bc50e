import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { DDIMScheduler } from "./ddim-scheduler.js";
import { DDPMScheduler } from "./ddpm-scheduler.js";

const X = tensor([0.7, -0.4, 1.1]);
const OUTPUT = tensor([0.2, 0.9, -0.6]);
const NOISE = tensor([-1, 0.5, 2]);

describe("DDIMScheduler", () => {
  it("is DDPM when eta is 1", () => {
    const ddim = new DDIMScheduler({ clip_sample: false });
    const ddpm = new DDPMScheduler({ clip_sample: false });
    for (const scheduler of [ddim, ddpm]) scheduler.setTimesteps(20);
    const a = ddim.step(OUTPUT, 500, X, { eta: 1, noise: NOISE }).prevSample.data;
    const b = ddpm.step(OUTPUT, 500, X, { noise: NOISE }).prevSample.data;
    a.forEach((value, i) => {
      expect(value).toBeCloseTo(b[i]!, 5);
    });
  });

  it("ends at the clean sample with set_alpha_to_one, at the first noise level without", () => {
    for (const set_alpha_to_one of [true, false]) {
      const scheduler = new DDIMScheduler({ set_alpha_to_one, clip_sample: false });
      scheduler.setTimesteps(10);
      const { prevSample, predOriginalSample } = scheduler.step(OUTPUT, 0, X);
      const wanted = set_alpha_to_one ? predOriginalSample! : X;
      prevSample.data.forEach((value, i) => {
        expect(value).toBeCloseTo(wanted.data[i]!, 6);
      });
    }
  });

  it("clips by default, and can derive the noise from the clipped sample", () => {
    const scheduler = new DDIMScheduler({ prediction_type: "sample" });
    scheduler.setTimesteps(10);
    const x0 = tensor([3, -0.5, 0.5]);
    const { predOriginalSample, prevSample } = scheduler.step(x0, 500, X);
    expect(predOriginalSample?.data[0]).toBe(1);
    const clipped = scheduler.step(x0, 500, X, { useClippedModelOutput: true }).prevSample;
    expect(clipped.data[0]).not.toBeCloseTo(prevSample.data[0]!, 3);
    expect(clipped.data[1]).toBeCloseTo(prevSample.data[1]!, 6);
  });

  it("refuses a step before setTimesteps, a bad eta, and eta without noise", () => {
    const scheduler = new DDIMScheduler();
    expect(() => scheduler.step(OUTPUT, 0, X)).toThrow(/call setTimesteps first/);
    scheduler.setTimesteps(10);
    expect(() => scheduler.step(OUTPUT, 500, X, { eta: -1 })).toThrow(/eta/);
    expect(() => scheduler.step(OUTPUT, 500, X, { eta: 0.5 })).toThrow(/options\.noise/);
    expect(() => scheduler.step(OUTPUT, 500, X, { eta: 0.5, noise: zeros([4]) })).toThrow(/same shape/);
    expect(() => scheduler.step(OUTPUT, 0.5, X)).toThrow(/integers from 0 to 999; got 0\.5/);
  });

  it("refuses to predict noise from pure noise", () => {
    const scheduler = new DDIMScheduler({ rescale_betas_zero_snr: true, timestep_spacing: "trailing" });
    scheduler.setTimesteps(10);
    expect(() => scheduler.step(OUTPUT, 999, X)).toThrow(/zero signal-to-noise/);
  });
});
