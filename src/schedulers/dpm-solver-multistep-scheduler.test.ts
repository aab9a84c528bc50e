import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { DDIMScheduler } from "./ddim-scheduler.js";
import { DPMSolverMultistepScheduler } from "./dpm-solver-multistep-scheduler.js";

const LATENT = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };
const X = tensor([0.7, -0.4, 1.1]);
const OUTPUT = tensor([0.2, 0.9, -0.6]);

describe("DPMSolverMultistepScheduler", () => {
  it("is DDIM at order 1", () => {
    const dpm = new DPMSolverMultistepScheduler({ ...LATENT, solver_order: 1, timestep_spacing: "trailing" });
    const ddim = new DDIMScheduler({ ...LATENT, clip_sample: false, timestep_spacing: "trailing" });
    for (const scheduler of [dpm, ddim]) scheduler.setTimesteps(10);
    for (const t of dpm.timesteps.slice(0, 9)) {
      const [a, b] = [dpm.step(OUTPUT, t, X), ddim.step(OUTPUT, t, X)].map((result) => result.prevSample.data);
      a!.forEach((value, i) => {
        expect(value).toBeCloseTo(b![i]!, 5);
      });
    }
  });

  it("converges faster at order 2 than at order 1", () => {
    // A model whose clean sample drifts with lambda = −log(sigma)
    const final = (solver_order: number, solver_type: string, steps: number) => {
      const scheduler = new DPMSolverMultistepScheduler({
        ...LATENT,
        solver_order,
        solver_type,
        prediction_type: "sample",
        lower_order_final: false,
      });
      scheduler.setTimesteps(steps);
      let x = tensor([1]);
      scheduler.timesteps.forEach((t, i) => {
        x = scheduler.step(tensor([Math.log(scheduler.sigmas[i]!) / 5]), t, x).prevSample;
      });
      return x.data[0]!;
    };
    const exact = final(2, "midpoint", 900);
    const [one, midpoint, heun] = [final(1, "midpoint", 30), final(2, "midpoint", 30), final(2, "heun", 30)];
    expect(Math.abs(midpoint - exact)).toBeLessThan(Math.abs(one - exact) / 2);
    expect(Math.abs(heun - exact)).toBeLessThan(Math.abs(one - exact) / 2);
    expect(heun).not.toBe(midpoint);
  });

  it("never visits a timestep twice, even where rounding makes neighbours equal", () => {
    const scheduler = new DPMSolverMultistepScheduler({ ...LATENT, use_karras_sigmas: true });
    scheduler.setTimesteps(200);
    expect(new Set(scheduler.timesteps).size).toBe(scheduler.timesteps.length);
    expect(scheduler.timesteps.length).toBeLessThan(200);
    expect(scheduler.sigmas).toHaveLength(scheduler.timesteps.length + 1);
  });

  it("refuses variants that it does not have", () => {
    for (const options of [
      { algorithm_type: "sde-dpmsolver++" },
      { solver_order: 3 },
      { solver_type: "bh2" },
      { lambda_min_clipped: -5.1 },
      { variance_type: "learned_range" },
      { use_lu_lambdas: true },
      { use_flow_sigmas: true },
    ]) {
      expect(() => new DPMSolverMultistepScheduler(options)).toThrow(new RegExp(Object.keys(options)[0]!));
    }
    expect(() => new DPMSolverMultistepScheduler({ lambda_min_clipped: Number.NEGATIVE_INFINITY })).not.toThrow();
  });

  it("refuses a sample that changes its size during a run", () => {
    const scheduler = new DPMSolverMultistepScheduler(LATENT);
    scheduler.setTimesteps(10);
    scheduler.step(X, scheduler.timesteps[0]!, X);
    expect(() => scheduler.step(zeros([4]), scheduler.timesteps[1]!, zeros([4]))).toThrow(/keep its shape/);
  });

  it("refuses leading spacing with as many steps as training timesteps", () => {
    const scheduler = new DPMSolverMultistepScheduler({ timestep_spacing: "leading" });
    expect(() => scheduler.setTimesteps(1000)).toThrow(/below num_train_timesteps=1000/);
  });
});
