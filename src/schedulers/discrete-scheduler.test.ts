import { describe, expect, it } from "vitest";
import { Tensor, tensor } from "../tensor/tensor.js";
import { createScheduler } from "./create-scheduler.js";

const LATENT = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };
const X0 = Float32Array.of(1.5, -0.5, 0.25, 2, -1, 0);
const NOISE = Float32Array.of(0.3, -1.2, 0.8, 0.1, 1.9, -0.7);
const SHAPE = [2, 3];

function near(actual: ArrayLike<number>, wanted: ArrayLike<number>, digits = 4): void {
  expect(actual).toHaveLength(wanted.length);
  for (let i = 0; i < wanted.length; i++) expect(actual[i]!).toBeCloseTo(wanted[i]!, digits);
}

/** What a perfect model says when the clean sample is X0 and the noise NOISE, whatever the timestep. */
function truth(type: string, alpha: number): Tensor<"float32"> {
  const [a, s] = [Math.sqrt(alpha), Math.sqrt(1 - alpha)];
  if (type === "sample") return new Tensor("float32", SHAPE, X0);
  if (type === "epsilon") return new Tensor("float32", SHAPE, NOISE);
  return new Tensor(
    "float32",
    SHAPE,
    NOISE.map((noise, i) => a * noise - s * X0[i]!),
  );
}

describe("a perfect model", () => {
  const cases = [
    ["DDIMScheduler", {}],
    ["DDIMScheduler", { timestep_spacing: "trailing", rescale_betas_zero_snr: true }],
    ["EulerDiscreteScheduler", { timestep_spacing: "trailing" }],
    ["EulerDiscreteScheduler", { timestep_spacing: "leading", steps_offset: 1 }],
    ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero" }],
    ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero", use_karras_sigmas: true, solver_order: 1 }],
    ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero", solver_type: "heun", timestep_spacing: "trailing" }],
    ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero", rescale_betas_zero_snr: true }],
    ["UniPCMultistepScheduler", {}],
    ["UniPCMultistepScheduler", { solver_order: 3, solver_type: "bh1", timestep_spacing: "trailing" }],
    ["UniPCMultistepScheduler", { rescale_betas_zero_snr: true, disable_corrector: [3] }],
  ] as const;
  const solvers = cases.flatMap(([name, options]) =>
    (["epsilon", "v_prediction", "sample"] as const)
      .filter((type) => type !== "epsilon" || name !== "DDIMScheduler" || !("rescale_betas_zero_snr" in options))
      .map((type) => [name, type, options] as const),
  );
  // PNDM averages outputs of several timesteps, so only an output that is the same at all of them is exact there.
  // DDPM's posterior leads to the clean sample whatever the noise, if it is told the clean sample.
  const others = [
    ["PNDMScheduler", "epsilon", { skip_prk_steps: true, set_alpha_to_one: true }],
    ["DDPMScheduler", "sample", { clip_sample: false }],
    ["EulerAncestralDiscreteScheduler", "sample", { timestep_spacing: "leading" }],
    ["DPMSolverMultistepScheduler", "sample", { algorithm_type: "sde-dpmsolver++", final_sigmas_type: "zero" }],
    ["LCMScheduler", "sample", {}],
  ] as const;

  it.each([...solvers, ...others])("leads %s (%s) to the clean sample with %o", (name, type, options) => {
    const scheduler = createScheduler({
      _class_name: name,
      ...LATENT,
      clip_sample: false,
      prediction_type: type,
      ...options,
    });
    scheduler.setTimesteps(20);
    const start = scheduler.timesteps[0]!;
    let x = scheduler.addNoise(
      new Tensor("float32", SHAPE, X0),
      new Tensor("float32", SHAPE, NOISE),
      tensor([start], [1], "float32"),
    );
    for (const t of scheduler.timesteps) {
      const output = truth(type, scheduler.alphasCumprod![t]!);
      x = scheduler.step(output, t, x, { noise: (shape) => tensor(NOISE, shape) }).prevSample;
    }
    near(x.data, X0, 3);
  });
});

describe("addNoise and getVelocity", () => {
  const x0 = new Tensor("float32", SHAPE, X0);
  const noise = new Tensor("float32", SHAPE, NOISE);

  it("take one timestep per sample, or one for all, in any of three dtypes", () => {
    const scheduler = createScheduler({ _class_name: "DDPMScheduler", ...LATENT });
    const int64 = scheduler.addNoise(x0, noise, tensor([3, 700], [2], "int64"));
    const int32 = scheduler.addNoise(x0, noise, tensor([3, 700], [2], "int32"));
    const float32 = scheduler.addNoise(x0, noise, tensor([3, 700], [2], "float32"));
    expect(int32.data).toEqual(int64.data);
    expect(float32.data).toEqual(int64.data);
    const alpha = scheduler.alphasCumprod![700]!;
    expect(int64.data[4]).toBeCloseTo(-Math.sqrt(alpha) + 1.9 * Math.sqrt(1 - alpha), 6);
    const all = scheduler.addNoise(x0, noise, tensor([700], [1], "int64"));
    near(all.data.subarray(3), int64.data.subarray(3), 7);
  });

  it("leave their inputs as they are", () => {
    const scheduler = createScheduler({ _class_name: "DDIMScheduler", ...LATENT });
    const before = X0.slice();
    scheduler.addNoise(x0, noise, tensor([999], [1], "int64"));
    scheduler.getVelocity(x0, noise, tensor([999], [1], "int64"));
    expect(X0).toEqual(before);
  });

  it("give back the sample from a velocity", () => {
    const scheduler = createScheduler({ _class_name: "DDIMScheduler", ...LATENT });
    const t = tensor([400], [1], "int64");
    const [v, x] = [scheduler.getVelocity(x0, noise, t), scheduler.addNoise(x0, noise, t)];
    const alpha = scheduler.alphasCumprod![400]!;
    near(
      x.data.map((value, i) => Math.sqrt(alpha) * value - Math.sqrt(1 - alpha) * v.data[i]!),
      X0,
      5,
    );
  });
});

it("config holds every option, cannot be changed, and leaves private keys out", () => {
  const { config } = createScheduler({ _class_name: "DDIMScheduler", _diffusers_version: "0.21.4", beta_end: 0.01 });
  expect(config).toMatchObject({ beta_end: 0.01, beta_start: 0.0001, timestep_spacing: "leading", clip_sample: true });
  expect(Object.keys(config).filter((key) => key.startsWith("_"))).toEqual([]);
  expect(Object.isFrozen(config)).toBe(true);
});
