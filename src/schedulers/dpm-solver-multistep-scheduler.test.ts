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

  it("keeps duplicate timesteps and exact noise levels where final_sigmas_type is named", () => {
    const scheduler = new DPMSolverMultistepScheduler({
      ...LATENT,
      use_karras_sigmas: true,
      final_sigmas_type: "zero",
    });
    scheduler.setTimesteps(200);
    expect(scheduler.timesteps).toHaveLength(200);
    expect(new Set(scheduler.timesteps).size).toBeLessThan(200);
    expect(new Set(scheduler.sigmas).size).toBe(201);
    expect(scheduler.sigmas.at(-1)).toBe(0);
    let x = X;
    for (const t of scheduler.timesteps) x = scheduler.step(OUTPUT, t, x).prevSample;
    expect(x.data.every(Number.isFinite)).toBe(true);
  });

  it("remembers in its configuration that final_sigmas_type was not named", () => {
    const once = new DPMSolverMultistepScheduler({ ...LATENT, use_karras_sigmas: true });
    const twice = new DPMSolverMultistepScheduler(once.config);
    for (const scheduler of [once, twice]) scheduler.setTimesteps(40);
    expect(twice.sigmas).toEqual(once.sigmas);
    expect(once.sigmas.at(-1)).toBe(once.sigmas.at(-2));
  });

  it("takes solver types of UniPC for its own default, as diffusers does", () => {
    expect(new DPMSolverMultistepScheduler({ solver_type: "bh2" }).config.solver_type).toBe("midpoint");
  });

  describe("sde-dpmsolver++", () => {
    const SDE = { ...LATENT, algorithm_type: "sde-dpmsolver++", final_sigmas_type: "zero" };

    it("keeps the variance of noise from step to step", () => {
      const scheduler = new DPMSolverMultistepScheduler({ ...SDE, prediction_type: "sample", solver_order: 1 });
      scheduler.setTimesteps(5);
      scheduler.timesteps.slice(0, -1).forEach((t, i) => {
        const s = (sigma: number) => sigma / Math.hypot(sigma, 1);
        const [from, to] = [s(scheduler.sigmas[i]!), s(scheduler.sigmas[i + 1]!)];
        // Both directions of the noise at once: one element sees only x, the other only the fresh noise.
        const x = tensor([from, 0]);
        const { data } = scheduler.step(zeros([2]), t, x, { noise: tensor([0, 1]) }).prevSample;
        expect(Math.hypot(data[0]!, data[1]!)).toBeCloseTo(to, 5);
      });
    });

    it("ends at the clean sample of the last step, whatever the noise", () => {
      const scheduler = new DPMSolverMultistepScheduler({ ...SDE, prediction_type: "sample" });
      scheduler.setTimesteps(4);
      let x = X;
      for (const t of scheduler.timesteps) x = scheduler.step(OUTPUT, t, x, { noise: tensor([9, -9, 9]) }).prevSample;
      x.data.forEach((value, i) => {
        expect(value).toBeCloseTo(OUTPUT.data[i]!, 5);
      });
    });

    it("asks for noise, and can repeat the step once it has some", () => {
      const scheduler = new DPMSolverMultistepScheduler(SDE);
      scheduler.setTimesteps(4);
      const t = scheduler.timesteps[0]!;
      expect(() => scheduler.step(OUTPUT, t, X)).toThrow(/pass options\.noise/);
      expect(() => scheduler.step(OUTPUT, t, X, { noise: zeros([2]) })).toThrow(/same shape/);
      scheduler.step(OUTPUT, t, X, { noise: X });
    });
  });

  it("refuses variants that it does not have", () => {
    for (const options of [
      { algorithm_type: "sde-dpmsolver" },
      { algorithm_type: "dpmsolver" },
      { solver_order: 3 },
      { solver_type: "bh3" },
      { lambda_min_clipped: -5.1 },
      { variance_type: "learned_range" },
      { use_lu_lambdas: true },
      { use_flow_sigmas: true },
      { use_beta_sigmas: true },
      { use_karras_sigmas: true, use_exponential_sigmas: true },
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
