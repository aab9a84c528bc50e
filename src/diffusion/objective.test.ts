import { describe, expect, it } from "vitest";
import { objectiveGolden } from "../../test/support/objective-golden.js";
import { relativeError } from "../../test/support/relative-error.js";
import { ConfigError } from "../errors.js";
import { createScheduler, DDPMScheduler } from "../schedulers/index.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import { createObjective } from "./objective.js";

const clean = randn([3, 4, 2, 2], { generator: new Generator(1) });
const noise = randn([3, 4, 2, 2], { generator: new Generator(2) });
const CONFIGS = [
  { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" },
  { trained_betas: Array.from({ length: 50 }, (_, i) => 0.001 + i / 1000), num_train_timesteps: 50 },
  { rescale_betas_zero_snr: true, prediction_type: "v_prediction", timestep_spacing: "trailing" },
  { prediction_type: "sample" },
];

describe("the objective of a checkpoint", () => {
  it("adds noise and sets targets as the scheduler's own class does, whatever the class", () => {
    for (const config of CONFIGS) {
      const own = new DDPMScheduler(config);
      const last = own.alphasCumprod.length - 1;
      const timesteps = [0, 17, last];
      const given = tensor(timesteps, [3], "int64");
      const ddim = createScheduler({ _class_name: "DDIMScheduler", ...config });
      for (const source of [ddim.config, { _class_name: "DEISMultistepScheduler", ...config }]) {
        const objective = createObjective(source);
        expect(objective.trainTimesteps).toBe(last + 1);
        const { latents, target } = objective.noised(clean, noise, timesteps);
        expect(latents).toEqual(own.addNoise(clean, noise, given));
        const velocity = own.getVelocity(clean, noise, given);
        expect(target).toEqual({ epsilon: noise, v_prediction: velocity, sample: clean }[own.predictionType]);
      }
    }
  });

  it("finds the noise again in a perfect prediction", () => {
    for (const config of CONFIGS) {
      const objective = createObjective(config);
      const timesteps = [1, 20, objective.trainTimesteps - 1];
      const { latents, target } = objective.noised(clean, noise, timesteps);
      const size = clean.size / 3;
      const found = Float32Array.from(target.data, (output, i) => {
        const [a, b] = objective.noiseFactors(timesteps[Math.floor(i / size)]!);
        return a * output + b * latents.data[i]!;
      });
      expect(relativeError(found, noise.data)).toBeLessThan(1e-6);
    }
  });

  it("agrees with diffusers: noise schedules, inputs and targets", async () => {
    const { tensor: read, settings } = await objectiveGolden();
    const [x, n] = [read("clean"), read("noise")];
    for (const [name, timesteps] of [
      ["sd", [0, 431, 999]],
      ["zero", [0, 431, 999]],
      ["flow", Array.from(read("flow.timesteps").data)],
    ] as const) {
      const config =
        name === "flow" ? { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 } : settings.configs[name];
      const targets = name === "flow" ? { flow_prediction: "target" } : { epsilon: "", v_prediction: "velocity" };
      for (const [predictionType, target] of Object.entries(targets)) {
        const objective = createObjective(config, { predictionType: predictionType as "epsilon" });
        const noised = objective.noised(x, n, timesteps);
        expect(relativeError(noised.latents.data, read(`${name}.noisy`).data)).toBeLessThan(1e-6);
        const expected = target === "" ? n : read(`${name}.${target}`);
        expect(relativeError(noised.target.data, expected.data)).toBeLessThan(1e-6);
      }
    }
    const rescaled = createObjective(settings.configs.sd, { zeroTerminalSnr: true, predictionType: "v_prediction" });
    const alphas = Array.from({ length: 1000 }, (_, timestep) => rescaled.levelAt(timestep).alpha ** 2);
    expect(relativeError(alphas, read("zero.alphas_cumprod").data)).toBeLessThan(1e-6);
    expect(alphas.at(-1)).toBe(0);
  });

  it("of flow takes timesteps between integers, and finds the noise again", () => {
    const flow = createObjective({ _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 500 });
    const timesteps = [0, 123.4, 500];
    const { latents, target } = flow.noised(clean, noise, timesteps);
    const size = clean.size / 3;
    const found = Float32Array.from(target.data, (output, i) => {
      const [a, b] = flow.noiseFactors(timesteps[Math.floor(i / size)]!);
      return a * output + b * latents.data[i]!;
    });
    expect(relativeError(found, noise.data)).toBeLessThan(1e-6);
    expect(flow.levelAt(123.4).sigma).toBeCloseTo(0.2468, 12);
    expect(() => flow.levelAt(500.5)).toThrow(/numbers from 0 to 500; got 500.5/);
  });

  it("of flow is the same for samplers of other families that are told so", () => {
    const config = {
      _class_name: "UniPCMultistepScheduler",
      use_flow_sigmas: true,
      prediction_type: "flow_prediction",
    };
    const objective = createObjective({ ...config, flow_shift: 5, beta_start: 0.1 });
    expect(objective.predictionType).toBe("flow_prediction");
    expect(objective.shiftFor(64, 64)).toBe(5);
  });

  it("can be another than the checkpoint's, flow included", () => {
    const flow = createObjective({ num_train_timesteps: 50 }, { predictionType: "flow_prediction" });
    expect(flow.trainTimesteps).toBe(50);
    expect(flow.noised(clean, noise, [25, 25, 25]).latents.data[0]).toBeCloseTo(
      (clean.data[0]! + noise.data[0]!) / 2,
      6,
    );
    const sample = createObjective({}, { predictionType: "sample" });
    expect(sample.noised(clean, noise, [1, 2, 3]).target).toEqual(clean);
  });

  it("adds perturbed noise to the input, and keeps the target", () => {
    const objective = createObjective({ prediction_type: "v_prediction" });
    const other = randn(clean.shape, { generator: new Generator(9) });
    const { latents, target } = objective.noised(clean, noise, [5, 6, 7], other);
    expect(latents).toEqual(objective.noised(clean, other, [5, 6, 7]).latents);
    expect(target).toEqual(objective.noised(clean, noise, [5, 6, 7]).target);
  });

  it.each([
    [{}, { zeroTerminalSnr: true }, /zeroTerminalSnr is not for models that predict epsilon/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler" }, { zeroTerminalSnr: true }, /zeroTerminalSnr is not for flow/],
    [
      { _class_name: "FlowMatchEulerDiscreteScheduler" },
      { predictionType: "epsilon" },
      /predictionType epsilon needs a noise schedule/,
    ],
    [
      {},
      { predictionType: "x0" },
      /predictionType must be one of epsilon, v_prediction, sample, flow_prediction; got "x0"/,
    ],
    [{}, { loss: "huber", huberC: -1 }, /huberC must be a finite number above 0; got -1/],
  ])("refuses options that it cannot honour: %j with %j", (config, options, message) => {
    expect(() => createObjective(config, options as object)).toThrow(message);
  });

  it("takes the configuration of schedulers that cannot be sampled with", () => {
    const deis = {
      _class_name: "DEISMultistepScheduler",
      algorithm_type: "deis",
      dynamic_thresholding_ratio: 0.995,
      lower_order_final: true,
      solver_order: 2,
      solver_type: "logrho",
      thresholding: true,
      use_karras_sigmas: true,
      beta_schedule: "scaled_linear",
    };
    const { latents } = createObjective(deis).noised(clean, noise, [5, 6, 7]);
    const own = new DDPMScheduler({ beta_schedule: "scaled_linear" });
    expect(latents).toEqual(own.addNoise(clean, noise, tensor([5, 6, 7], [3], "int64")));
  });

  it.each([
    [{ prediction_type: "flow_prediction" }, /prediction_type="flow_prediction"/],
    [{ use_flow_sigmas: true }, /flow matching needs prediction_type flow_prediction; it says undefined/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler", invert_sigmas: true }, /invert_sigmas=true is invalid/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler", warp: 2 }, /has warp=2, of which it is not known/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 0 }, /shift=0 is invalid/],
    [{ snr_shift_scale: 3 }, /has snr_shift_scale=3, of which it is not known/],
    [{ beta_schedule: "laplace" }, /beta_schedule="laplace"/],
    [{ trained_betas: [0.1, 0.2] }, /trained_betas must have num_train_timesteps values/],
  ])("refuses what it cannot honour: %j", (config, message) => {
    expect(() => createObjective(config)).toThrow(ConfigError);
    expect(() => createObjective(config)).toThrow(message);
  });

  it("refuses timesteps that the noise schedule does not have", () => {
    const objective = createObjective({});
    for (const timestep of [-1, 1000, 0.5]) {
      expect(() => objective.noised(clean, noise, [0, 1, timestep])).toThrow(/integers from 0 to 999; got /);
    }
  });
});
