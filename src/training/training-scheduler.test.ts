import { describe, expect, it } from "vitest";
import "../runtime/node.js";
import { ConfigError } from "../errors.js";
import { createScheduler, DDPMScheduler } from "../schedulers/index.js";
import { trainingScheduler } from "./fine-tune.js";

const forConfig = (schedulerConfig: Record<string, unknown>) => trainingScheduler({ schedulerConfig });

describe("the scheduler of a training", () => {
  it("adds noise as the pipeline's own does, with every option that says how", () => {
    const configs = [
      { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" },
      { trained_betas: Array.from({ length: 50 }, (_, i) => 0.001 + i / 1000), num_train_timesteps: 50 },
      { rescale_betas_zero_snr: true, prediction_type: "v_prediction", timestep_spacing: "trailing" },
    ];
    for (const config of configs) {
      const own = createScheduler({ _class_name: "DDIMScheduler", ...config });
      for (const given of [own.config, { _class_name: "DEISMultistepScheduler", ...config }]) {
        const scheduler = forConfig(given);
        expect(scheduler).toBeInstanceOf(DDPMScheduler);
        expect(scheduler.alphasCumprod).toEqual(own.alphasCumprod);
        expect(scheduler.predictionType).toBe(own.predictionType);
      }
    }
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
    expect(forConfig(deis).config.beta_schedule).toBe("scaled_linear");
  });

  it.each([
    [{ prediction_type: "sample" }, /prediction_type must be epsilon or v_prediction/],
    [{ prediction_type: "flow_prediction" }, /prediction_type="flow_prediction"/],
    [{ use_flow_sigmas: true }, /flow matching/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler" }, /FlowMatchEulerDiscreteScheduler.*flow matching/],
    [{ snr_shift_scale: 3 }, /has snr_shift_scale=3, of which it is not known/],
    [{ beta_schedule: "laplace" }, /beta_schedule="laplace"/],
    [{ trained_betas: [0.1, 0.2] }, /trained_betas must have num_train_timesteps values/],
  ])("refuses what it cannot honour: %j", (config, message) => {
    expect(() => forConfig(config)).toThrow(ConfigError);
    expect(() => forConfig(config)).toThrow(message);
  });
});
