import { describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { readSafetensors } from "../storage/tensor-file.js";
import { Generator, randn } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";
import { createScheduler } from "./create-scheduler.js";
import type { RunOptions, StepOptions } from "./scheduler.js";

/** Largest relative L2 deviation from diffusers 0.42, at every step. */
const TOLERANCE = 2e-4;
/** Fractional timesteps are interpolated in float32 there; integers must be the same. */
const TIMESTEP_TOLERANCE = 1e-2;

interface Case {
  class: string;
  steps: number;
  config: Record<string, unknown>;
  stepOptions: { eta?: number; use_clipped_model_output?: boolean };
  /** Options of `setTimesteps`. */
  run?: RunOptions;
  initNoiseSigma: number;
}

const golden = await readSafetensors("test/reference/samplers.safetensors");
const cases = Object.entries(JSON.parse(golden.metadata.cases!) as Record<string, Case>);

function values(name: string): Float32Array {
  return golden.tensors.get(name)!.data as Float32Array;
}

const start = golden.tensors.get("start") as Tensor<"float32">;

/** The i-th tensor of a stack of samples. */
function item(name: string, i: number): Tensor<"float32"> {
  return new Tensor("float32", start.shape, values(name).slice(i * start.size, (i + 1) * start.size));
}

describe("every step agrees with diffusers 0.42", () => {
  it.each(cases)("%s", (name, { class: className, config, steps, stepOptions, run, initNoiseSigma }) => {
    const scheduler = createScheduler({ _class_name: className, ...config });
    scheduler.setTimesteps(steps, run);
    const timesteps = values(`${name}.timesteps`);
    expect(scheduler.timesteps).toHaveLength(timesteps.length);
    timesteps.forEach((t, i) => {
      const distance = Math.abs(scheduler.timesteps[i]! - t);
      expect(distance, `timestep ${i}`).toBeLessThanOrEqual(Number.isInteger(t) ? 0 : TIMESTEP_TOLERANCE);
    });
    expect(Math.abs(scheduler.initNoiseSigma / initNoiseSigma - 1)).toBeLessThan(1e-6);

    let draws = 0;
    const options: StepOptions = {
      noise: () => item("noises", draws++),
      eta: stepOptions.eta,
      useClippedModelOutput: stepOptions.use_clipped_model_output,
    };
    const scaled = start.data.map((value) => value * scheduler.initNoiseSigma);
    let x = new Tensor("float32", start.shape, scaled);
    for (const [i, t] of scheduler.timesteps.entries()) {
      const input = scheduler.scaleModelInput(x, t);
      const wantedInput = golden.tensors.has(`${name}.inputs`) ? item(`${name}.inputs`, i) : x;
      expect(relativeError(input.data, wantedInput.data), `input of step ${i}`).toBeLessThan(TOLERANCE);
      x = scheduler.step(item("outputs", i), t, x, options).prevSample;
      expect(relativeError(x.data, item(`${name}.samples`, i).data), `step ${i}`).toBeLessThan(TOLERANCE);
    }
  });
});

it("covers every sampler", () => {
  expect([...new Set(cases.map(([, entry]) => entry.class))].sort()).toEqual([
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
  ]);
});

it("the noises are draws of this library's generator, too", () => {
  const generator = new Generator(Number(golden.metadata.noiseSeed));
  for (let i = 0; i < 3; i++) {
    expect(relativeError(randn(start.shape, { generator }).data, item("noises", i).data)).toBeLessThan(1e-6);
  }
});
