import { describe, expect, it } from "vitest";
import { tensor, zeros } from "../tensor/tensor.js";
import { DPMSolverMultistepScheduler } from "./dpm-solver-multistep-scheduler.js";
import { UniPCMultistepScheduler } from "./uni-pc-multistep-scheduler.js";

const LATENT = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };
const X = tensor([0.7, -0.4, 1.1]);
const OUTPUT = tensor([0.2, 0.9, -0.6]);

/** The end of a run with a model whose clean sample drifts with lambda = −log(sigma). */
function drift(options: Record<string, unknown>, steps: number): number {
  const scheduler = new UniPCMultistepScheduler({
    ...LATENT,
    prediction_type: "sample",
    use_exponential_sigmas: true,
    final_sigmas_type: "sigma_min",
    lower_order_final: false,
    ...options,
  });
  scheduler.setTimesteps(steps);
  let x = tensor([1]);
  scheduler.timesteps.forEach((t, i) => {
    const lambda = -Math.log(scheduler.sigmas[i]!);
    x = scheduler.step(tensor([Math.sin(lambda) / 2]), t, x).prevSample;
  });
  return x.data[0]!;
}

describe("UniPCMultistepScheduler", () => {
  it("is DPM-Solver++ where it neither extrapolates nor corrects", () => {
    const shared = { ...LATENT, solver_order: 1, final_sigmas_type: "zero" };
    const unipc = new UniPCMultistepScheduler({ ...shared, disable_corrector: [0, 1, 2, 3, 4] });
    const dpm = new DPMSolverMultistepScheduler(shared);
    for (const scheduler of [unipc, dpm]) scheduler.setTimesteps(5);
    expect(unipc.timesteps).toEqual(dpm.timesteps);
    for (const t of dpm.timesteps) {
      const [a, b] = [unipc.step(OUTPUT, t, X), dpm.step(OUTPUT, t, X)].map((result) => result.prevSample.data);
      a!.forEach((value, i) => {
        expect(value).toBeCloseTo(b![i]!, 5);
      });
    }
  });

  it("converges faster with each order, and faster with the corrector", () => {
    // Equal steps of lambda: linspace makes the last one far too long to tell orders apart.
    const exact = drift({ solver_order: 3 }, 900);
    const error = (options: Record<string, unknown>) => Math.abs(drift(options, 40) - exact);
    const disable_corrector = Array.from({ length: 40 }, (_, i) => i);
    const errors = [error({ solver_order: 1 }), error({ solver_order: 2 }), error({ solver_order: 3 })];
    expect(errors[1]!).toBeLessThan(errors[0]! / 4);
    expect(errors[2]!).toBeLessThan(errors[1]! / 4);
    expect(errors[1]!).toBeLessThan(error({ solver_order: 2, disable_corrector }) / 4);
    expect(error({ solver_order: 3, solver_type: "bh1" })).toBeLessThan(errors[1]! / 2);
  });

  it("stays finite where the last step leaves no noise, with every kind and order", () => {
    for (const solver_type of ["bh1", "bh2"]) {
      for (const lower_order_final of [true, false]) {
        const options = { solver_type, solver_order: 3, lower_order_final, final_sigmas_type: "zero" };
        expect(drift(options, 6)).toBeTypeOf("number");
        expect(Number.isFinite(drift(options, 6))).toBe(true);
      }
    }
  });

  it("starts anew after setTimesteps, and in the middle of a run", () => {
    const scheduler = new UniPCMultistepScheduler(LATENT);
    const runs = [0, 1].map(() => {
      scheduler.setTimesteps(6);
      let x = X;
      for (const t of scheduler.timesteps.slice(2)) x = scheduler.step(OUTPUT, t, x).prevSample;
      return x.data;
    });
    expect(runs[1]).toEqual(runs[0]);
  });

  it("leaves its inputs as they are, and does not look at them again", () => {
    const run = (spoil: boolean) => {
      const scheduler = new UniPCMultistepScheduler({ ...LATENT, prediction_type: "sample" });
      scheduler.setTimesteps(4);
      let x = X;
      for (const t of scheduler.timesteps) {
        const [output, sample] = [tensor(Array.from(OUTPUT.data)), tensor(Array.from(x.data))];
        x = scheduler.step(output, t, sample).prevSample;
        expect([output.data, OUTPUT.data]).toEqual([OUTPUT.data, output.data]);
        if (spoil) for (const { data } of [output, sample]) data.fill(99);
      }
      return x.data;
    };
    expect(run(true)).toEqual(run(false));
  });

  it("takes solver types of DPM-Solver for its own default, as diffusers does", () => {
    expect(new UniPCMultistepScheduler({ solver_type: "midpoint" }).config.solver_type).toBe("bh2");
  });

  it("refuses variants that it does not have, by name", () => {
    for (const options of [
      { solver_order: 4 },
      { solver_type: "bh3" },
      { solver_p: {} },
      { thresholding: true },
      { use_beta_sigmas: true },
      { use_flow_sigmas: true },
      { sigma_min: 0.1 },
      { shift_terminal: 0.1 },
      { disable_corrector: [-1] },
      { use_karras_sigmas: true, use_exponential_sigmas: true },
      { predict_x0: false },
    ]) {
      expect(() => new UniPCMultistepScheduler(options)).toThrow(new RegExp(Object.keys(options)[0]!));
    }
  });

  it("refuses a sample that changes its size during a run", () => {
    const scheduler = new UniPCMultistepScheduler(LATENT);
    scheduler.setTimesteps(10);
    scheduler.step(X, scheduler.timesteps[0]!, X);
    expect(() => scheduler.step(zeros([4]), scheduler.timesteps[1]!, zeros([4]))).toThrow(/keep its shape/);
  });
});
