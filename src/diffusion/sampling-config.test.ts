import { expect, it } from "vitest";
import { createScheduler } from "../schedulers/index.js";
import { samplingConfig } from "./sampling-config.js";

const SD15 = {
  _class_name: "PNDMScheduler",
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  skip_prk_steps: true,
  steps_offset: 1,
};

it("leaves a configuration alone that says what is trained", () => {
  for (const options of [{}, { predictionType: "epsilon" as const }, { zeroTerminalSnr: false }]) {
    expect(samplingConfig(SD15, options)).toBe(SD15);
  }
});

it("gives a sampler that begins in pure noise where training ends there", () => {
  const config = samplingConfig(SD15, { predictionType: "v_prediction", zeroTerminalSnr: true });
  const scheduler = createScheduler(config);
  scheduler.setTimesteps(4);
  expect(Array.from(scheduler.timesteps)[0]).toBe(999);
  expect(scheduler.alphasCumprod!.at(-1)).toBe(0);
  expect(scheduler.predictionType).toBe("v_prediction");
  expect(config).toMatchObject({ beta_schedule: "scaled_linear", _class_name: "DDIMScheduler" });
});

it("names a sampler of flow for a model that learned flow in place of noise", () => {
  const config = samplingConfig({ ...SD15, num_train_timesteps: 500 }, { predictionType: "flow_prediction" });
  expect(config).toEqual({ _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 500 });
});
