import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { PNDMScheduler } from "./pndm-scheduler.js";

const X = tensor([0.7, -0.4, 1.1]);

describe("PNDMScheduler", () => {
  it("visits its second timestep twice", () => {
    const scheduler = new PNDMScheduler({ skip_prk_steps: true, steps_offset: 1 });
    scheduler.setTimesteps(4);
    expect(scheduler.timesteps).toEqual([751, 501, 501, 251, 1]);
    scheduler.setTimesteps(1);
    expect(scheduler.timesteps).toEqual([1]);
  });

  it("does not change when the caller reuses its buffers", () => {
    const run = (reuse: boolean) => {
      const scheduler = new PNDMScheduler({ skip_prk_steps: true });
      scheduler.setTimesteps(6);
      const buffer = zeros([3]);
      let x = X;
      for (const t of scheduler.timesteps) {
        const output = reuse ? buffer : zeros([3]);
        for (let i = 0; i < 3; i++) output.data[i] = 0.3 * x.data[i]! + t / 2000;
        x = scheduler.step(output, t, x).prevSample;
      }
      return x.data;
    };
    expect(run(true)).toEqual(run(false));
  });

  it("refuses the Runge-Kutta warm-up, sample prediction and zero terminal SNR", () => {
    expect(() => new PNDMScheduler()).toThrow(/skip_prk_steps=false/);
    expect(() => new PNDMScheduler({ skip_prk_steps: true, prediction_type: "sample" })).toThrow(/prediction_type/);
    expect(() => new PNDMScheduler({ skip_prk_steps: true, rescale_betas_zero_snr: true })).toThrow(/zero_snr=true/);
  });

  it("refuses a step before setTimesteps, after the run, and a sample that changes its size", () => {
    const scheduler = new PNDMScheduler({ skip_prk_steps: true });
    expect(() => scheduler.step(X, 0, X)).toThrow(/call setTimesteps first/);
    scheduler.setTimesteps(2);
    scheduler.step(X, 500, X);
    expect(() => scheduler.step(zeros([2]), 0, zeros([2]))).toThrow(/keep its shape/);
    scheduler.step(X, 0, X);
    scheduler.step(X, 0, X);
    expect(() => scheduler.step(X, 0, X)).toThrow(/the run is over/);
  });
});
