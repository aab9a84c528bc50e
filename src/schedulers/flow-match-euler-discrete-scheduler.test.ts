import { describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { tensor } from "../tensor/tensor.js";
import { FlowMatchEulerDiscreteScheduler } from "./flow-match-euler-discrete-scheduler.js";

const X = tensor([0.7, -0.4]);
const NOISE = tensor([1, 2]);

describe("FlowMatchEulerDiscreteScheduler", () => {
  it("goes straight from noise to the image where the model is right", () => {
    const scheduler = new FlowMatchEulerDiscreteScheduler({ shift: 3 });
    scheduler.setTimesteps(5);
    const velocity = scheduler.getVelocity(X, NOISE, tensor([500]));
    let sample = NOISE;
    for (const t of scheduler.timesteps) {
      const { prevSample, predOriginalSample } = scheduler.step(velocity, t, sample);
      expect(relativeError(predOriginalSample!.data, X.data)).toBeLessThan(1e-5);
      sample = prevSample;
    }
    expect(relativeError(sample.data, X.data)).toBeLessThan(1e-5);
  });

  it("adds noise by the share that a timestep of the run has, also before there is a run", () => {
    const scheduler = new FlowMatchEulerDiscreteScheduler();
    expect(scheduler.addNoise(X, NOISE, tensor([250])).data[1]).toBeCloseTo(0.75 * -0.4 + 0.25 * 2, 5);
    scheduler.setTimesteps(4, { sigmas: [1, 0.75, 0.5, 0.25] });
    expect(scheduler.timesteps).toEqual([1000, 750, 500, 250]);
    expect(() => scheduler.addNoise(X, NOISE, tensor([300]))).toThrow(/t=300 is none of the timesteps/);
  });

  it("has no noise schedule of another kind", () => {
    const scheduler = new FlowMatchEulerDiscreteScheduler();
    expect("alphasCumprod" in scheduler).toBe(false);
    expect(scheduler.predictionType).toBe("flow_prediction");
  });

  it("needs what dynamic shifting follows", () => {
    const scheduler = new FlowMatchEulerDiscreteScheduler({ use_dynamic_shifting: true });
    expect(() => scheduler.setTimesteps(4)).toThrow(/use_dynamic_shifting needs options.mu.*got undefined/);
    expect(() => scheduler.setTimesteps(4, { mu: Number.NaN })).toThrow(/got NaN/);
  });

  it("refuses noise levels that are none", () => {
    const scheduler = new FlowMatchEulerDiscreteScheduler();
    expect(() => scheduler.setTimesteps(3, { sigmas: [1, 0.5] })).toThrow(/sigmas must be 3, as many as steps; got 2/);
    expect(() => scheduler.setTimesteps(2, { sigmas: [1, 0] })).toThrow(/above 0, up to 1; got 0/);
    const terminal = new FlowMatchEulerDiscreteScheduler({ shift_terminal: 0.1 });
    expect(() => terminal.setTimesteps(1)).toThrow(/shift_terminal=0.1 needs a last noise level below 1/);
  });

  it.each([
    [{ invert_sigmas: true }, /invert_sigmas=true is invalid or not supported/],
    [{ use_beta_sigmas: true, use_karras_sigmas: true }, /use_karras_sigmas and use_beta_sigmas exclude each other/],
    [{ time_shift_type: "cubic" }, /time_shift_type="cubic"/],
    [{ shift_terminal: 1 }, /shift_terminal=1/],
    [{ upscale_mode: "bicubic" }, /unknown option upscale_mode/],
  ])("refuses %j", (config, message) => {
    expect(() => new FlowMatchEulerDiscreteScheduler(config)).toThrow(message);
  });
});
