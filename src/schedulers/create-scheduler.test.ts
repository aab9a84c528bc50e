import { beforeAll, describe, expect, it } from "vitest";
import { ConfigError } from "../errors.js";
import { readSafetensors } from "../storage/tensor-file.js";
import { Tensor, zeros } from "../tensor/tensor.js";
import { createScheduler } from "./create-scheduler.js";

/** Largest deviation from diffusers 0.21.4, relative to the largest element of the expected sample. */
const STEP_TOLERANCE = 2e-4;

const CASES = [
  "ddim_eps",
  "ddim_v",
  "ddim_zsnr_trailing",
  "euler",
  "euler_karras",
  "dpmpp_2m",
  "dpmpp_2m_karras",
  "pndm",
];

interface Golden {
  class: string;
  num_inference_steps: number;
  config: Record<string, unknown>;
}

let golden: Awaited<ReturnType<typeof readSafetensors>>;
beforeAll(async () => {
  golden = await readSafetensors("test/reference/schedulers.safetensors");
});

function expected(name: string): Float32Array {
  return golden.tensors.get(name)!.data as Float32Array;
}

/** The closed-form model of the metadata: 0.3·x + 0.1·sin(3x) + t/2000. */
function model(x: Tensor<"float32">, t: number): Tensor<"float32"> {
  return new Tensor(
    "float32",
    x.shape,
    x.data.map((value) => 0.3 * value + 0.1 * Math.sin(3 * value) + t / 2000),
  );
}

function deviation(actual: Float32Array, wanted: Float32Array): number {
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < wanted.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - wanted[i]!));
    scale = Math.max(scale, Math.abs(wanted[i]!));
  }
  return difference / scale;
}

describe("golden trajectories", () => {
  it("covers every case of the file", () => {
    expect(Object.keys(golden.metadata).sort()).toEqual([...CASES, "model"].sort());
  });

  it.each(CASES)("%s follows diffusers through every step", (name) => {
    const entry = JSON.parse(golden.metadata[name]!) as Golden;
    const scheduler = createScheduler({ _class_name: entry.class, ...entry.config });
    scheduler.setTimesteps(entry.num_inference_steps);
    const timesteps = expected(`${name}.timesteps`);
    expect(scheduler.timesteps).toHaveLength(timesteps.length);
    timesteps.forEach((t, i) => {
      expect(Math.abs(scheduler.timesteps[i]! - t)).toBeLessThan(2e-2);
    });

    let x = golden.tensors.get(`${name}.initial`) as Tensor<"float32">;
    const trajectory = expected(`${name}.trajectory`);
    scheduler.timesteps.forEach((t, i) => {
      x = scheduler.step(model(scheduler.scaleModelInput(x, t), t), t, x).prevSample;
      const wanted = trajectory.subarray(i * x.size, (i + 1) * x.size);
      expect(deviation(x.data, wanted), `step ${i}`).toBeLessThan(STEP_TOLERANCE);
    });
  });

  it.each(["DDPMScheduler", "DDIMScheduler", "PNDMScheduler"])(
    "%s adds noise and forms velocities as diffusers",
    (name) => {
      const { config } = JSON.parse(golden.metadata.ddim_eps!) as Golden;
      const scheduler = createScheduler({ _class_name: name, ...config, skip_prk_steps: true });
      const [x0, noise, timesteps] = ["x0", "noise", "timesteps"].map((key) => golden.tensors.get(`ddpm.${key}`)!);
      const noisy = scheduler.addNoise(x0!, noise!, timesteps!);
      const velocity = scheduler.getVelocity(x0!, noise!, timesteps!);
      expect(deviation(noisy.data, expected("ddpm.noisy"))).toBeLessThan(1e-5);
      expect(deviation(velocity.data, expected("ddpm.velocity"))).toBeLessThan(1e-5);
    },
  );

  it("gives the same again after setTimesteps", () => {
    for (const name of ["dpmpp_2m", "pndm", "euler"]) {
      const entry = JSON.parse(golden.metadata[name]!) as Golden;
      const scheduler = createScheduler({ _class_name: entry.class, ...entry.config });
      const runs = [0, 1].map(() => {
        scheduler.setTimesteps(5);
        let x = golden.tensors.get(`${name}.initial`) as Tensor<"float32">;
        for (const t of scheduler.timesteps) {
          x = scheduler.step(model(scheduler.scaleModelInput(x, t), t), t, x).prevSample;
        }
        return x.data;
      });
      expect(runs[1]).toEqual(runs[0]);
    }
  });
});

describe("createScheduler", () => {
  it("reads the configurations that Stable Diffusion 1.5 and SDXL ship with", () => {
    const shared = {
      _diffusers_version: "0.19.0.dev0",
      beta_end: 0.012,
      beta_schedule: "scaled_linear",
      beta_start: 0.00085,
      clip_sample: false,
      num_train_timesteps: 1000,
      set_alpha_to_one: false,
      skip_prk_steps: true,
      steps_offset: 1,
      trained_betas: null,
    };
    const pndm = createScheduler({ ...shared, _class_name: "PNDMScheduler" });
    pndm.setTimesteps(50);
    expect(pndm.timesteps.slice(0, 3)).toEqual([981, 961, 961]);
    expect(pndm.timesteps).toHaveLength(51);

    const euler = createScheduler({
      ...shared,
      _class_name: "EulerDiscreteScheduler",
      interpolation_type: "linear",
      prediction_type: "epsilon",
      sample_max_value: 1,
      timestep_spacing: "leading",
      use_karras_sigmas: false,
    });
    euler.setTimesteps(50);
    expect(euler.timesteps.slice(0, 2)).toEqual([981, 961]);
    expect(euler.initNoiseSigma).toBeCloseTo(13.1585, 3);
  });

  it("refuses a class that it does not know, by name", () => {
    expect(() => createScheduler({ _class_name: "HeunDiscreteScheduler" })).toThrow(/HeunDiscreteScheduler/);
    expect(() => createScheduler({ _class_name: "toString" })).toThrow(ConfigError);
    expect(() => createScheduler({})).toThrow(/_class_name/);
  });

  const classes = [
    "DDPMScheduler",
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "PNDMScheduler",
    "LCMScheduler",
  ];

  it.each(classes)("%s refuses unknown options and unsupported values by name", (name) => {
    const make = (options: Record<string, unknown>) => () =>
      createScheduler({ _class_name: name, skip_prk_steps: true, ...options });
    expect(make({ betas_start: 0.1 })).toThrow(/betas_start/);
    expect(make({ beta_schedule: "sigmoid" })).toThrow(/beta_schedule="sigmoid"/);
    expect(make({ prediction_type: "flow_prediction" })).toThrow(/prediction_type="flow_prediction"/);
    expect(make({ timestep_spacing: "quadratic" })).toThrow(/timestep_spacing/);
    expect(make({ num_train_timesteps: 0 })).toThrow(/num_train_timesteps=0/);
    expect(make({ beta_start: Number.NaN })).toThrow(/beta_start=NaN/);
    expect(make({ steps_offset: -1 })).toThrow(ConfigError);
    expect(make({ trained_betas: [0.1, 0.2] })).toThrow(/trained_betas/);
  });

  it.each(classes)("%s refuses bad numbers of steps, bad tensors and bad timesteps", (name) => {
    const scheduler = createScheduler({ _class_name: name, skip_prk_steps: true });
    for (const steps of [0, -3, 2.5, 1001, Number.NaN]) {
      expect(() => scheduler.setTimesteps(steps)).toThrow(/steps must be an integer/);
    }
    scheduler.setTimesteps(10);
    const x = zeros([1, 4, 2, 2]);
    const t = scheduler.timesteps[0]!;
    expect(() => scheduler.step(zeros([1, 4, 2, 3]), t, x, { noise: x })).toThrow(/same shape/);
    expect(() => scheduler.step(zeros([1, 4, 2, 2], "float16"), t, x, { noise: x })).toThrow(/float32/);
    expect(() => scheduler.step(x, 1000, x, { noise: x })).toThrow(ConfigError);
    expect(() => scheduler.step(x, -1, x, { noise: x })).toThrow(ConfigError);
    expect(() => scheduler.addNoise(x, x, zeros([1], "bool"))).toThrow(/int64, int32 or float32/);
    expect(() => scheduler.addNoise(x, x, zeros([2], "int64"))).toThrow(/one per sample/);
    expect(() => scheduler.getVelocity(x, x, new Tensor("int64", [1], BigInt64Array.of(1000n)))).toThrow(/0 to 999/);
    expect(() => scheduler.getVelocity(x, x, new Tensor("float32", [1], Float32Array.of(0.5)))).toThrow(/0\.5/);
  });

  it.each(classes)("%s starts where it is told to", (name) => {
    const scheduler = createScheduler({ _class_name: name, skip_prk_steps: true, prediction_type: "v_prediction" });
    scheduler.setTimesteps(10);
    for (const index of [-1, scheduler.timesteps.length, 1.5]) {
      expect(() => scheduler.setBeginIndex(index)).toThrow(/setBeginIndex: index must be/);
    }
    scheduler.setBeginIndex(6);
    const x = zeros([1, 4, 2, 2]);
    expect(() => scheduler.step(x, scheduler.timesteps[6]!, x, { noise: x })).not.toThrow();
  });

  it.each(classes)("%s works with every spacing, with 1 step and with many", (name) => {
    for (const timestep_spacing of ["leading", "trailing", "linspace"]) {
      for (const prediction_type of name === "PNDMScheduler"
        ? ["epsilon", "v_prediction"]
        : ["epsilon", "v_prediction", "sample"]) {
        for (const steps of [1, 2, 3, 7, 20, 999]) {
          const scheduler = createScheduler({
            _class_name: name,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear",
            skip_prk_steps: true,
            original_inference_steps: 1000,
            timestep_spacing,
            prediction_type,
          });
          scheduler.setTimesteps(steps);
          let x = new Tensor("float32", [2], Float32Array.of(0.5, -0.25));
          for (const t of scheduler.timesteps) {
            const output = model(scheduler.scaleModelInput(x, t), t);
            x = scheduler.step(output, t, x, { noise: (shape) => zeros(shape) }).prevSample;
          }
          expect(x.data.every(Number.isFinite), `${timestep_spacing} ${prediction_type} ${steps}`).toBe(true);
        }
      }
    }
  });
});
