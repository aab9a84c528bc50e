import { describe, expect, it } from "vitest";
import { Generator, randn } from "../tensor/random.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { DDPMScheduler } from "./ddpm-scheduler.js";

describe("DDPMScheduler", () => {
  it("visits all training timesteps before setTimesteps", () => {
    const { timesteps } = new DDPMScheduler({ num_train_timesteps: 4 });
    expect(timesteps).toEqual([3, 2, 1, 0]);
  });

  it("steps to the mean of the posterior, equation 7, plus its noise", () => {
    const scheduler = new DDPMScheduler({
      num_train_timesteps: 2,
      trained_betas: [0.5, 0.75],
      clip_sample: false,
      prediction_type: "sample",
    });
    // ᾱ = 0.5, 0.125; mean = sqrt(0.5)·0.75/0.875·x0 + sqrt(0.25)·0.5/0.875·x, variance = 0.5/0.875·0.75
    const [x0, x, noise] = [tensor([2]), tensor([-3]), tensor([0.1])];
    const mean = ((Math.sqrt(0.5) * 0.75) / 0.875) * 2 + ((0.5 * 0.5) / 0.875) * -3;
    const small = scheduler.step(x0, 1, x, { noise });
    expect(small.prevSample.data[0]).toBeCloseTo(mean + Math.sqrt((0.5 / 0.875) * 0.75) * 0.1, 6);
    expect(small.predOriginalSample?.data[0]).toBe(2);
    const large = new DDPMScheduler({ ...scheduler.config, variance_type: "fixed_large" }).step(x0, 1, x, { noise });
    expect(large.prevSample.data[0]).toBeCloseTo(mean + Math.sqrt(0.75) * 0.1, 6);
    expect(scheduler.step(x0, 0, x).prevSample.data[0]).toBeCloseTo(2, 6);
  });

  it("clips the clean sample to clip_sample_range", () => {
    const scheduler = new DDPMScheduler({ prediction_type: "sample", clip_sample_range: 1.5 });
    const { predOriginalSample } = scheduler.step(tensor([9, -9, 0.3]), 0, zeros([3]));
    expect(predOriginalSample?.data).toEqual(Float32Array.of(1.5, -1.5, 0.3));
  });

  it("asks for noise above timestep 0, draws it once, and checks its shape", () => {
    const scheduler = new DDPMScheduler();
    const x = zeros([2, 3]);
    expect(() => scheduler.step(x, 10, x)).toThrow(/pass options\.noise/);
    expect(() => scheduler.step(x, 10, x, { noise: zeros([6]) })).toThrow(/same shape/);
    const generator = new Generator(0);
    let draws = 0;
    const noise = (shape: readonly number[]) => {
      draws++;
      return randn(shape, { generator });
    };
    scheduler.step(x, 10, x, { noise });
    scheduler.step(x, 0, x, { noise });
    expect(draws).toBe(1);
  });

  it("steps to the next timestep of the run, however they are spaced", () => {
    const options = { clip_sample: false, prediction_type: "sample", timestep_spacing: "linspace" };
    const scheduler = new DDPMScheduler(options);
    scheduler.setTimesteps(4);
    expect(scheduler.timesteps).toEqual([999, 666, 333, 0]);
    const [now, next] = [scheduler.alphasCumprod[666]!, scheduler.alphasCumprod[333]!];
    const { prevSample } = scheduler.step(tensor([1]), 666, tensor([0]), { noise: tensor([0]) });
    expect(prevSample.data[0]).toBeCloseTo((Math.sqrt(next) * (1 - now / next)) / (1 - now), 6);
    expect(() => scheduler.step(tensor([1]), 665, tensor([0]))).toThrow(/t=665 is none of the timesteps/);
  });

  it("refuses learned variances, thresholding, and noise prediction from pure noise", () => {
    expect(() => new DDPMScheduler({ variance_type: "learned_range" })).toThrow(/variance_type="learned_range"/);
    expect(() => new DDPMScheduler({ thresholding: true })).toThrow(/thresholding=true/);
    const scheduler = new DDPMScheduler({ rescale_betas_zero_snr: true });
    const x = zeros([1]);
    expect(() => scheduler.step(x, 999, x, { noise: x })).toThrow(/zero signal-to-noise/);
  });
});
