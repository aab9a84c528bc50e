import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { LCMScheduler } from "./lcm-scheduler.js";

describe("LCMScheduler", () => {
  it("takes its timesteps from those that the model was distilled on", () => {
    const scheduler = new LCMScheduler();
    scheduler.setTimesteps(4);
    expect(scheduler.timesteps).toEqual([999, 759, 499, 259]);
    scheduler.setTimesteps(50);
    expect(scheduler.timesteps.at(-1)).toBe(19);
    expect(new Set(scheduler.timesteps).size).toBe(50);
  });

  it("predicts a clean sample and adds noise up to the next timestep, and none at the end", () => {
    const scheduler = new LCMScheduler({ prediction_type: "sample", timestep_scaling: 0.001 });
    scheduler.setTimesteps(2);
    const [first, last] = scheduler.timesteps as [number, number];
    const consistency = (t: number, original: number, x: number) => {
      const time = t * 0.001;
      return (time * original) / Math.sqrt(time ** 2 + 0.25) + (0.25 * x) / (time ** 2 + 0.25);
    };
    const step = scheduler.step(tensor([2]), first, tensor([-1]), { noise: tensor([0.5]) });
    const alpha = scheduler.alphasCumprod[last]!;
    const denoised = consistency(first, 2, -1);
    expect(step.predOriginalSample?.data[0]).toBeCloseTo(denoised, 6);
    expect(step.prevSample.data[0]).toBeCloseTo(Math.sqrt(alpha) * denoised + Math.sqrt(1 - alpha) * 0.5, 6);
    const end = scheduler.step(tensor([3]), last, tensor([1]));
    expect(end.prevSample.data[0]).toBeCloseTo(consistency(last, 3, 1), 6);
  });

  it("asks for noise in every step but the last, and then again for the same step", () => {
    const scheduler = new LCMScheduler();
    const x = zeros([2]);
    expect(() => scheduler.step(x, 999, x, { noise: x })).toThrow(/setTimesteps first/);
    scheduler.setTimesteps(2);
    const [first, last] = scheduler.timesteps as [number, number];
    expect(() => scheduler.step(x, first, x)).toThrow(/pass options\.noise/);
    scheduler.step(x, first, x, { noise: x });
    expect(() => scheduler.step(x, first, x, { noise: x })).toThrow(/is due/);
    scheduler.step(x, last, x);
  });

  it("refuses more steps than the model was distilled on, and a distillation longer than the training", () => {
    const scheduler = new LCMScheduler({ original_inference_steps: 20 });
    expect(() => scheduler.setTimesteps(21)).toThrow(/original_inference_steps=20; got 21/);
    expect(() => new LCMScheduler({ original_inference_steps: 1001 })).toThrow(/original_inference_steps/);
    expect(() => new LCMScheduler({ thresholding: true })).toThrow(/thresholding=true/);
    expect(() => new LCMScheduler({ timestep_scaling: 0 })).toThrow(/timestep_scaling=0/);
  });

  it("refuses noise prediction from pure noise", () => {
    const scheduler = new LCMScheduler({ rescale_betas_zero_snr: true });
    scheduler.setTimesteps(2);
    const x = zeros([1]);
    expect(() => scheduler.step(x, 999, x, { noise: x })).toThrow(/zero signal-to-noise/);
  });
});
